/**
 * The rollout of one group (arpo.md section 3): it begins with trajectories that are given, if any,
 * grows by its branch rule (growth.ts), fills the slots that nobody has with fresh roots, all at
 * once, and scores every member.
 *
 * What it begins with and what an answer is worth is the caller's: a task with a verifier
 * (rollout.ts), or a logged conversation with ratings. A fork costs no tool call, no prefill and no
 * token of its prefix. Every draw is keyed by (seed, group, member, position) and members get their
 * index without regard to timing, so a group is the same whatever the batching.
 */
import { assert } from '../assert.ts';
import type { Deadline } from '../agent/deadline.ts';
import type { Episode } from '../agent/episode.ts';
import type { EpisodeContext } from '../agent/types.ts';
import type { ToolOutcome } from '../ports.ts';
import type { Task } from '../records.ts';
import { Cassette } from './cassette.ts';
import { deltaAfter } from './branch-rules.ts';
import { EffectFreeTools } from './effect-free-tools.ts';
import { GroupMembers, stepAt, type Member } from './group-members.ts';
import { growGroup } from './growth.ts';
import { countGroup, type RolloutGroup } from './rollout-group.ts';
import type { RolloutSettings } from './rollout-settings.ts';
import { throwIfAborted, type ScoredTrajectory } from './task-episode.ts';

export type {
  BranchDecision,
  GroupCounts,
  RolloutGroup,
  RolloutTrajectory,
} from './rollout-group.ts';

export interface GroupOptions {
  context: EpisodeContext;
  settings: RolloutSettings;
  /** What the group is about, for figures and the log. */
  task: Task;
  /** Names that may be called. */
  offered: ReadonlySet<string>;
  /** Of the training step. */
  seed: number;
  /** The group's place in the step. */
  index: number;
  /** Aborted when any part of the step's work fails. */
  deadline: Deadline;
  /** Calls that were made before, which the group's cassette answers; of equal ones the last. */
  recorded?: readonly RecordedCall[];
  /**
   * Opens what the group begins with. Episodes must run over the context passed here: its tools
   * are those of `context` behind the group's cassette. The group closes them.
   */
  begin: (context: EpisodeContext) => GroupStart;
  /** Called once for each finished trajectory, those given too. */
  score: (episode: Episode, place: TrajectoryPlace) => ScoredTrajectory;
}

export interface RecordedCall {
  call: { name: string; arguments: string };
  outcome: ToolOutcome;
}

export interface GroupStart {
  /** Fresh roots are forks of `episode` after its step `at`: a prompt, or a given trajectory. */
  prompt: { episode: Episode; at: number };
  /**
   * Finished trajectories, forkable: the first roots of the group. Default none. Rules read dH from
   * their steps, so these hold the entropies that shall count.
   */
  roots?: readonly Episode[];
  /**
   * Siblings that begin with the group, whatever the rule: behind tool step `at` of `roots[root]`.
   * The rule counts them as roots.
   */
  forks?: readonly { root: number; at: number }[];
  /** ln p under the weights of now, by step id, of steps of `roots` that other weights sampled. */
  rescored?: ReadonlyMap<string, Float32Array>;
}

/** Facts of a trajectory that its record needs. */
export interface TrajectoryPlace {
  groupId: string;
  index: number;
  given: boolean;
  branchedFromStepId: string | null;
}

/** Samples the group to its end and scores it. All sequences are closed when this settles. */
export async function sampleGroup(options: GroupOptions): Promise<RolloutGroup> {
  const { settings, deadline, context, index, seed, offered } = options;
  throwIfAborted(deadline, 'rollouts');
  const groupId = context.newId('group');
  const free = new EffectFreeTools(context.tools);
  const cassette = settings.cassette === true ? new Cassette(free) : null;
  for (const { call, outcome } of options.recorded ?? []) cassette?.record(call, outcome);
  const start = options.begin({ ...context, tools: cassette ?? free });
  const members = new GroupMembers({
    size: settings.groupSize,
    seed,
    group: index,
    temperature: settings.temperature,
    offered,
    deadline,
    prompt: start.prompt,
    score: (member) => options.score(member.episode, placeOf(member, groupId)),
  });
  const given = start.roots ?? [];
  try {
    const forks = start.forks ?? [];
    assert(given.length + forks.length <= settings.groupSize, 'what is given fits the group');
    given.forEach((episode, slot) => members.addGiven(slot, episode));
    forks.forEach(({ root, at }, i) => openFork(members, { root, at, slot: given.length + i }));
    const { settled } = await growGroup(members, settings, {
      vocabularySize: context.tokenizer.vocabularySize,
      ...(start.rescored && { rescored: start.rescored }),
    });
    if (!settled) await fillWithRoots(members);
    return resultOf(members, options.task, groupId);
  } finally {
    members.close();
    for (const episode of given) episode.close();
  }
}

function openFork(members: GroupMembers, fork: { root: number; at: number; slot: number }): void {
  const parent = members.at(fork.root);
  const { steps } = parent.episode;
  members.addFork(parent, fork.at, fork.slot);
  members.decisions.push({
    rule: 'given',
    trajectory: parent.index,
    stepId: stepAt(parent, fork.at).id,
    deltaEntropy: deltaAfter(steps, fork.at),
    signal: deltaAfter(steps, fork.at),
    probability: 1,
    siblings: 1,
  });
}

/** Also ends what nobody has sampled to its end. */
async function fillWithRoots(members: GroupMembers): Promise<void> {
  for (const slot of members.free) members.addRoot(slot);
  const unfinished = members.all.filter(({ episode }) => episode.endReason === null);
  await members.together(unfinished, async (member) => {
    await members.finish(member);
    members.release(member);
  });
  assert(members.free.length === 0, 'a group is filled exactly');
}

function placeOf({ index, given, branch }: Member, groupId: string): TrajectoryPlace {
  return { groupId, index, given, branchedFromStepId: branch?.stepId ?? null };
}

function resultOf(members: GroupMembers, task: Task, id: string): RolloutGroup {
  const trajectories = members.all.map((member) => ({
    ...members.score(member),
    index: member.index,
    root: member.root,
    branch: member.branch,
    ...(member.given && { given: true as const }),
  }));
  const { decisions } = members;
  return { id, task, trajectories, decisions, counts: countGroup(trajectories) };
}
