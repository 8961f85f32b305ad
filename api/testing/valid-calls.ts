/**
 * One call of each operation that works: the base of the cases that all operations have in common.
 * Total over the operations, so a new one needs its row here.
 */
import type { OperationId } from '../contract/contract.ts';
import { endedRun, retrain } from './admin-cases.ts';
import { finishedRun, waitingRun } from './agent-cases.ts';
import { CHAT } from './chat-cases.ts';
import { DOCUMENT, storedDocument } from './tool-cases.ts';
import { TASKS } from './harness.ts';
import type { CallOptions, Harness } from './harness.ts';
import { trajectoryOf } from './log-cases.ts';
import { LIST_MCP_TOOLS } from './mcp-cases.ts';
import { RESPONSE, storedResponse } from './response-cases.ts';
import { exported } from './stream-cases.ts';

/** A call of each operation that works, when nothing is in the way. */
export const VALID: Record<OperationId, (h: Harness) => Promise<CallOptions>> = {
  createChatCompletion: async () => ({ body: CHAT }),
  listModels: async () => ({}),
  getModel: async () => ({ path: { model: 'ramify' } }),
  createAgentRun: async () => ({ body: { input: 'x' } }),
  listAgentRuns: async () => ({}),
  getAgentRun: storedRun,
  streamAgentRunEvents: storedRun,
  submitToolOutputs: async (h) => {
    const { id, call } = await waitingRun(h);
    const tool_outputs = [{ tool_call_id: call, output: 'Paris' }];
    return { path: { run_id: id }, body: { tool_outputs } };
  },
  cancelAgentRun: storedRun,
  callMcp: async () => ({ body: LIST_MCP_TOOLS }),
  createResponse: async () => ({ body: RESPONSE }),
  getResponse: storedResponse,
  deleteResponse: storedResponse,
  cancelResponse: storedResponse,
  listResponseInputItems: storedResponse,
  listTrajectories: async () => ({}),
  getTrajectory: async (h) => ({ path: { trajectory_id: await trajectoryOf(h) } }),
  getTrajectoryTree: async (h) => ({ path: { trajectory_id: await trajectoryOf(h) } }),
  exportTrajectories: async () => ({}),
  importTrajectories: async (h) => ({ body: await exported(h) }),
  listFeedback: async (h) => ({ path: { trajectory_id: await trajectoryOf(h) } }),
  replayTrajectory: async (h) => ({ path: { trajectory_id: await trajectoryOf(h) }, body: {} }),
  getTask: storedTask,
  deleteTask: storedTask,
  createFeedback: async (h) => ({
    body: { trajectory_id: await trajectoryOf(h), metric_name: 'reward', value: 1 },
  }),
  importTasks: async () => ({ body: JSON.stringify(TASKS[0]) }),
  listTasks: async () => ({}),
  listTools: async () => ({}),
  listCollections: async () => ({}),
  importDocuments: async () => ({ path: { name: 'notes' }, body: DOCUMENT }),
  deleteDocument: storedDocument,
  deleteCollection: storedDocument,
  retrain: async () => ({ body: {} }),
  listTrainingRuns: async () => ({}),
  getTrainingRun: async (h) => ({ path: { run_id: await endedRun(h, 'pass') } }),
  streamTrainingRunEvents: async (h) => ({ path: { run_id: await endedRun(h, 'pass') } }),
  cancelTrainingRun: async (h) => ({ path: { run_id: (await retrain(h)).body.id as string } }),
  listPolicies: async () => ({}),
  getPolicy: async () => ({ path: { version: 1 } }),
  listPolicyDecisions: async () => ({}),
  activatePolicy: async () => ({ path: { version: 1 } }),
  rollbackPolicy: async () => ({}),
  createKey: async () => ({ body: { name: 'operator', scopes: ['admin'] } }),
  listKeys: async () => ({}),
  // A known one would close the API to the cases without a key.
  revokeKey: async () => ({ path: { key_id: 'key_unknown' } }),
  rotateKey: async () => ({ path: { key_id: 'key_unknown' }, body: {} }),
  listAudit: async () => ({}),
  getHealth: async () => ({}),
  getReadiness: async () => ({}),
  getOpenapi: async () => ({}),
  getDocs: async () => ({}),
  getDocsFile: async () => ({ path: { file: 'start.js' } }),
};

async function storedTask(h: Harness): Promise<CallOptions> {
  h.deps.stores.tasks.import(TASKS);
  return { path: { task_id: TASKS[0]?.id ?? '' } };
}

/** A run that only the database knows: the memory of the process is a cache. */
export async function storedRun(h: Harness): Promise<CallOptions> {
  const id = await finishedRun(h);
  const stored = h.deps.stores.agentRuns.get(id);
  const copy = { ...stored, id: `${id}-stored` };
  await h.deps.stores.agentRuns.create(copy);
  return { path: { run_id: copy.id } };
}
