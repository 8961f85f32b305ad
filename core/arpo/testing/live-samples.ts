/** Rated live conversations as plain data, for tests: everything filled in, no policy behind it. */
import { DEFAULT_TENANT } from '../../records.ts';
import type { LiveSample, StepRecord, ToolCallRecord, TrajectoryRecord } from '../../records.ts';

export interface SampleFields {
  question?: string;
  answer?: string;
  reward?: number;
  version?: number;
  status?: TrajectoryRecord['status'];
  endReason?: TrajectoryRecord['endReason'];
  tools?: string[];
  clientTools?: boolean;
  promptTokens?: number[];
  /** Between the prompt and the answer, each behind a policy step. */
  toolSteps?: StepRecord[];
}

let made = 0;

export function liveSample(fields: SampleFields = {}): LiveSample {
  const { version = 3, toolSteps = [], promptTokens = [1, 2, 3] } = fields;
  const id = ++made;
  const sampled = [...toolSteps.flatMap((tool) => [policyStep(), tool]), policyStep()];
  const path = [step({ kind: 'prompt', tokens: Uint32Array.from(promptTokens) }), ...sampled];
  const steps = path.map((own, index) => ({
    ...own,
    id: `step_${id}_${index}`,
    parentId: index === 0 ? null : `step_${id}_${index - 1}`,
    index,
    policyVersion: version,
  }));
  return {
    trajectory: {
      id: `traj_${id}`,
      source: 'live',
      tenant: DEFAULT_TENANT,
      conversationId: null,
      leafStepId: `step_${id}_${steps.length - 1}`,
      policyVersion: version,
      taskId: null,
      trainingRunId: null,
      groupId: null,
      branchedFromStepId: null,
      status: fields.status ?? 'completed',
      endReason: fields.endReason ?? 'answer',
      answer: fields.answer ?? 'yes',
      formatOk: true,
      reward: fields.reward ?? 1,
      toolCalls: toolSteps.length,
      sampledTokens: 2 * (toolSteps.length + 1),
      createdAt: id,
    },
    steps,
    question: fields.question ?? 'is it?',
    tools: fields.tools ?? [],
    clientTools: fields.clientTools ?? false,
  };
}

/** A call of `search` and its result. */
export function toolStep(call: Partial<ToolCallRecord> = {}): StepRecord {
  return step({
    kind: 'tool',
    tokens: Uint32Array.of(4),
    toolCall: {
      id: 'call_1',
      name: 'search',
      arguments: '{"query":"x"}',
      result: 'found',
      error: null,
      durationMs: 1,
      effects: 'none',
      served: 'live',
      ...call,
    },
  });
}

function policyStep(): StepRecord {
  return step({
    kind: 'policy',
    tokens: Uint32Array.of(5, 6),
    logprobs: Float32Array.of(-1, -1),
    entropies: Float32Array.of(1, 1),
    sampling: { temperature: 1, topP: 1, topK: 0, seed: 1 },
    stepEntropy: 0.5,
    deltaEntropy: 0,
  });
}

function step(fields: Partial<StepRecord>): StepRecord {
  return {
    id: 'step',
    parentId: null,
    index: 0,
    kind: 'prompt',
    policyVersion: 1,
    tokens: new Uint32Array(0),
    logprobs: null,
    behaviourLogprobs: null,
    entropies: null,
    sampling: null,
    stepEntropy: null,
    deltaEntropy: null,
    text: '',
    toolCall: null,
    startedAt: 0,
    durationMs: 0,
    ...fields,
  };
}
