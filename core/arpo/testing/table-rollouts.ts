/**
 * Group rollouts on the table-driven policy (test/support/table-policy.ts) for tests: with odd
 * timing where asked, and without ids and times where groups are compared.
 */
import {
  echoTools,
  FunctionTools,
  tableContext,
  TableSampler,
  type TableSamplerOptions,
} from '../../../test/support/table-policy.ts';
import { mix } from '../../prng.ts';
import type { StepRecord, Task } from '../../records.ts';
import { entropyCandidates } from '../entropy.ts';
import { forestSteps, rolloutGroups, type RolloutGroup } from '../rollout.ts';
import { parseSettings } from '../settings.ts';

export const TASKS = ['who?', 'where?', 'when?'].map((question, i): Task => ({
  id: `task_${i}`,
  family: 'letters',
  split: 'train',
  question,
  truths: ['a'],
  verifier: 'exact',
  tools: ['search', 'lookup'],
  metadata: {},
}));

export interface RollSet {
  sampler?: TableSamplerOptions;
  tools?: FunctionTools;
  settings?: Record<string, unknown>;
  algorithm?: 'arpo' | 'grpo';
  seed?: number;
  tasks?: readonly Task[];
  signal?: AbortSignal;
}

/** Rolls out; what is thrown comes back as `error`. */
export async function roll(set: RollSet = {}) {
  const settings = parseSettings(set.algorithm ?? 'arpo', set.settings);
  const sampler = new TableSampler({
    entropyCandidates: entropyCandidates(settings.entropy),
    ...set.sampler,
  });
  const tools = set.tools ?? echoTools();
  const settled = await rolloutGroups({
    sampler,
    context: tableContext(tools),
    tasks: set.tasks ?? TASKS,
    settings,
    seed: set.seed ?? 1,
    runId: 'trn_1',
    version: 2,
    source: 'rollout',
    ...(set.signal && { signal: set.signal }),
  }).then(
    (groups) => ({ groups, error: null }),
    (error: unknown) => ({ groups: [] as RolloutGroup[], error }),
  );
  return { ...settled, sampler, tools };
}

/** Sampler and tools whose every call takes another, drawn number of event-loop turns. */
export function jittered(seed: number): Pick<RollSet, 'sampler' | 'tools'> {
  let calls = 0;
  const late = async (text: string): Promise<string> => {
    for (let turns = mix(seed, calls++) % 7; turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    return text;
  };
  return {
    sampler: { delay: (call) => mix(seed, 1, call) % 7 },
    tools: new FunctionTools({
      search: { run: (query) => late(`found ${query}`) },
      lookup: { run: (query) => late(`entry ${query}`) },
    }),
  };
}

/** Tools that have effects from their first call on, as those of an MCP server may get. */
export class TurningTools extends FunctionTools {
  constructor() {
    const run = (query: string): string => query;
    super({ search: { run }, lookup: { run } });
  }

  override specs(names: readonly string[]) {
    const effects = this.calls.length === 0 ? ('none' as const) : ('writes' as const);
    return super.specs(names).map((spec) => ({ ...spec, effects }));
  }
}

/** What a group is, without ids and times, token for token. */
export function shapeOf({ trajectories, decisions }: RolloutGroup) {
  return {
    trajectories: trajectories.map(({ steps, branch, root, index, reward, record }) => ({
      index,
      steps: steps.map(
        ({ kind, tokens, sampling }) => `${kind} ${sampling?.seed ?? ''} ${[...tokens].join()}`,
      ),
      from: branch === null ? null : [branch.parent, branch.stepIndex],
      root,
      reward,
      end: record.endReason,
    })),
    decisions: decisions.map(({ stepId: _, ...decision }) => decision),
  };
}

/** The steps of a group that the policy wrote, each once. */
export function policySteps(group: RolloutGroup): StepRecord[] {
  return forestSteps(group).filter(({ kind }) => kind === 'policy');
}

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
