/**
 * The members of a group in the making: trajectories that are sampled, forked and scored, each with
 * an index of its own in 0..groupSize-1. The index is part of the key of a member's draws, so who
 * gets which one must not depend on timing; that is up to the growth (growth.ts), which decides who
 * forks when. Nothing is decided here.
 *
 * A point is a tool result that a policy step follows: there a sibling can begin. A member comes to
 * its points one after the other; one that was finished before (given, or sampled ahead) goes over
 * its recorded points without sampling anything.
 */
import { assert, must } from '../assert.ts';
import type { Episode } from '../agent/episode.ts';
import type { Deadline } from '../agent/deadline.ts';
import type { StepRecord } from '../records.ts';
import { mapBounded } from './concurrency.ts';
import type { BranchDecision, RolloutTrajectory } from './rollout-group.ts';
import { throwIfAborted, turn, type ScoredTrajectory } from './task-episode.ts';

/** Last words of the keys of a group's draws, which set them apart from those of tokens. */
export const DRAWS = {
  branch: 0x6272616e,
  deal: 0x6465616c,
  order: 0x6f726472,
  fork: 0x666f726b,
} as const;

export interface Member {
  readonly index: number;
  readonly root: number;
  readonly branch: RolloutTrajectory['branch'];
  readonly episode: Episode;
  readonly given: boolean;
  /** Its own points, in order: indexes of tool steps. Those of its prefix are its parent's. */
  readonly points: number[];
  /** How many of them it has gone over. */
  passed: number;
  scored: ScoredTrajectory | null;
}

export interface MembersOptions {
  /** M. */
  size: number;
  /** Of the step, and the group's place in it. */
  seed: number;
  group: number;
  temperature: number;
  offered: ReadonlySet<string>;
  deadline: Deadline;
  /** A root rollout is a fork of this episode after step `at`. */
  prompt: { episode: Episode; at: number };
  score: (member: Member) => ScoredTrajectory;
}

export class GroupMembers {
  readonly options: MembersOptions;
  readonly decisions: BranchDecision[] = [];
  private readonly slots: (Member | undefined)[];

  constructor(options: MembersOptions) {
    this.options = options;
    this.slots = new Array<Member | undefined>(options.size).fill(undefined);
  }

  /** Ordered by index. */
  get all(): Member[] {
    return this.slots.filter((member) => member !== undefined);
  }

  /** Indexes that nobody has, rising. */
  get free(): number[] {
    return [...this.slots.keys()].filter((index) => this.slots[index] === undefined);
  }

  at(index: number): Member {
    return must(this.slots[index], 'a member of that index');
  }

  addRoot(index: number): Member {
    const { episode, at } = this.options.prompt;
    return this.add({ index, root: index, branch: null, episode: episode.fork(at) });
  }

  /** A finished trajectory; its points are those after the prompt. */
  addGiven(index: number, episode: Episode): Member {
    assert(episode.endReason !== null, 'a given trajectory is finished');
    const { at } = this.options.prompt;
    const member = this.add({ index, root: index, branch: null, episode, given: true });
    const { steps } = episode;
    for (let i = at + 1; i < steps.length; i++) {
      if (steps[i]?.kind === 'tool' && steps[i + 1]?.kind === 'policy') member.points.push(i);
    }
    return member;
  }

  /** A sibling of `parent` from its tool step `at` on. */
  addFork(parent: Member, at: number, index: number): Member {
    const stepId = stepAt(parent, at).id;
    return this.add({
      index,
      root: parent.root,
      branch: { parent: parent.index, stepId, stepIndex: at },
      episode: parent.episode.fork(at),
    });
  }

  /** Ended, and no point is left to go over. */
  isOver({ episode, points, passed }: Member): boolean {
    return episode.endReason !== null && passed >= points.length;
  }

  /**
   * To the next point, by one turn at most. Returns the index of the tool step, or null when the
   * turn led to none. Throws when the group's work is aborted.
   */
  async advance(member: Member): Promise<number | null> {
    if (member.passed >= member.points.length) {
      const at = await this.turn(member);
      if (at !== null) member.points.push(at);
    }
    return member.points[member.passed] === undefined
      ? null
      : (member.points[member.passed++] as number);
  }

  /** Samples a member to its end; its points wait to be gone over. */
  async finish(member: Member): Promise<void> {
    // Each turn ends the episode or uses up tool calls, which are bounded.
    while (member.episode.endReason === null) {
      const at = await this.turn(member);
      if (at !== null) member.points.push(at);
    }
  }

  /** Work on several members at once; the first failure aborts the group. */
  async together(
    members: readonly Member[],
    work: (member: Member) => Promise<void>,
  ): Promise<void> {
    const { deadline } = this.options;
    await mapBounded(members, members.length, work, deadline.fail);
    throwIfAborted(deadline, 'rollouts');
  }

  /** The member must have ended. Scored once. */
  score(member: Member): ScoredTrajectory {
    return (member.scored ??= this.options.score(member));
  }

  /** Lets go of a sequence that nothing will be forked from. */
  release({ episode }: Member): void {
    if (episode !== this.options.prompt.episode) episode.close();
  }

  /** By trajectory and depth: the order of time would depend on timing. */
  sortDecisions(): void {
    const depth = ({ trajectory, stepId }: BranchDecision): number =>
      this.at(trajectory).episode.steps.findIndex(({ id }) => id === stepId);
    this.decisions.sort((a, b) => a.trajectory - b.trajectory || depth(a) - depth(b));
  }

  /** Closes every sequence, that of the prompt too. */
  close(): void {
    this.options.prompt.episode.close();
    for (const { episode } of this.all) episode.close();
  }

  private add(
    fields: Pick<Member, 'index' | 'root' | 'branch' | 'episode'> & { given?: true },
  ): Member {
    const { index, given = false } = fields;
    assert(index in this.slots && this.slots[index] === undefined, `slot ${index} is free`);
    const member: Member = { ...fields, given, points: [], passed: 0, scored: null };
    this.slots[index] = member;
    return member;
  }

  private async turn(member: Member): Promise<number | null> {
    const { seed, group, temperature, offered, deadline } = this.options;
    throwIfAborted(deadline, 'rollouts');
    return turn(member.episode, {
      key: [seed, group, member.index],
      temperature,
      offered,
      signal: deadline.signal,
    });
  }
}

/** The first `count` members: those that were given (be they more), and fresh roots. */
export function startRoots(members: GroupMembers, count: number): Member[] {
  for (const index of members.free) if (index < count) members.addRoot(index);
  return members.all;
}

export function stepAt(member: Member, at: number): StepRecord {
  return must(member.episode.steps[at], 'a step of the path');
}
