/**
 * The rollout of one group by ARPO's rule (arpo.md section 3): N roots from the prompt, siblings
 * from the end of tool results that left the policy unsure, then fresh roots for the slots left.
 *
 * Turn order inside a group. Slots are scarce, so who asks first matters; to keep that independent
 * of timing, a group with free slots moves in rounds: every active trajectory makes one turn (its
 * tool results, then one policy step), and only when all of them are done are the branches decided,
 * ordered by (depth of the result, trajectory index). Other groups are not waited for. Once no slot
 * is free (at once for branch `none`) there is nothing to decide, and every trajectory runs on by
 * itself.
 *
 * A tool result is decided on once, by the trajectory that ran the tool, on the entropy of the step
 * that it wrote AFTER the result. A sibling's own first step follows the same result and opens no
 * further one. A fork costs no tool call, no prefill and no token of its prefix.
 */
import { assert } from '../assert.ts';
import { uniform } from '../prng.ts';
import { policyTokens, type Episode } from '../agent/episode.ts';
import { paperDecision, paperProbability } from './branching.ts';
import { mapBounded } from './concurrency.ts';
import { entropySettings, episodeLimits } from './settings.ts';
import {
  beginTask,
  scoreEpisode,
  throwIfAborted,
  turn,
  type ScoredTrajectory,
} from './task-episode.ts';
import type { Deadline } from '../agent/deadline.ts';
import type { StepRecord, Task } from '../records.ts';
import type { RolloutOptions } from './rollout.ts';

export interface BranchDecision {
  /** The trajectory that ran the tool, and its tool step. */
  trajectory: number;
  stepId: string;
  deltaEntropy: number;
  probability: number;
  /** Siblings opened: 0 when the draw said no. */
  siblings: number;
}

export interface RolloutTrajectory extends ScoredTrajectory {
  /** Position in the group; part of the key of its draws. */
  index: number;
  /** The root rollout from which it descends (its own index for a root). */
  root: number;
  /** Where it left another trajectory; null for a root rollout. */
  branch: { parent: number; stepId: string; stepIndex: number } | null;
}

export interface RolloutGroup {
  id: string;
  task: Task;
  /** At most `groupSize`, ordered by index. */
  trajectories: RolloutTrajectory[];
  /** Every result on which a branch was decided, in the order of decision. */
  decisions: BranchDecision[];
  counts: GroupCounts;
  /**
   * By step id: ln p of its tokens under the weights at the start of the update, for policy steps
   * that other weights sampled. A step that is not here was sampled by those weights.
   */
  rescored?: ReadonlyMap<string, Float32Array>;
}

export interface GroupCounts {
  rootRollouts: number;
  branches: number;
  /** Calls that reached a tool. */
  toolCallsExecuted: number;
  /** Calls in the prefixes that branches took over. */
  toolCallsSaved: number;
  tokensSampled: number;
  /** Policy tokens in the prefixes that branches took over. */
  tokensShared: number;
}

interface Member {
  index: number;
  root: number;
  branch: RolloutTrajectory['branch'];
  episode: Episode;
  /** The tool step that the newest policy step follows, while it is undecided. */
  undecided: number | null;
}

/** Sets the draws of branch decisions apart from all others. */
const BRANCH_DRAW = 0x6272616e;

export class GroupRollout {
  private readonly options: RolloutOptions;
  private readonly task: Task;
  private readonly index: number;
  private readonly deadline: Deadline;
  private readonly offered: ReadonlySet<string>;
  private readonly members: Member[] = [];
  private readonly decisions: BranchDecision[] = [];

  /** Group `index` of the step; `deadline` is aborted when any part of the work fails. */
  constructor(options: RolloutOptions, task: Task, index: number, deadline: Deadline) {
    this.options = options;
    this.task = task;
    this.index = index;
    this.deadline = deadline;
    this.offered = new Set(task.tools);
  }

  /** Samples the group to its end and scores it. All sequences are closed when this settles. */
  async run(): Promise<RolloutGroup> {
    throwIfAborted(this.deadline, 'rollouts');
    const { settings, evaluation, ...rest } = this.options;
    const prompt = beginTask({
      ...rest,
      task: this.task,
      priority: evaluation ? 'evaluation' : 'rollout',
      limits: episodeLimits(settings),
      entropy: entropySettings(settings),
    });
    try {
      const roots = settings.branch === 'none' ? settings.groupSize : settings.initialRollouts;
      await this.grow(this.addRoots(prompt, roots));
      await this.grow(this.addRoots(prompt, this.freeSlots));
      assert(this.members.length === settings.groupSize, 'a group is filled exactly');
      return this.result();
    } finally {
      prompt.close();
      for (const { episode } of this.members) episode.close();
    }
  }

  private get freeSlots(): number {
    return this.options.settings.groupSize - this.members.length;
  }

  private addRoots(prompt: Episode, count: number): Member[] {
    return Array.from({ length: count }, () => this.addMember(prompt.fork(0), null));
  }

  private addMember(episode: Episode, parent: { member: Member; at: number } | null): Member {
    const index = this.members.length;
    const stepId = parent?.member.episode.steps[parent.at]?.id;
    const member: Member = {
      index,
      root: parent?.member.root ?? index,
      branch:
        parent === null || stepId === undefined
          ? null
          : { parent: parent.member.index, stepId, stepIndex: parent.at },
      episode,
      undecided: null,
    };
    this.members.push(member);
    return member;
  }

  /** Runs members, and the branches that they open, to their ends. */
  private async grow(starters: Member[]): Promise<void> {
    let active = starters;
    // Each round every member ends or uses up tool calls, which are bounded.
    while (active.length > 0 && this.freeSlots > 0) {
      await this.together(active, (member) => this.turn(member));
      const siblings = this.decide(active);
      for (const { episode } of active) if (episode.endReason !== null) episode.close();
      active = active.filter(({ episode }) => episode.endReason === null).concat(siblings);
    }
    await this.together(active, async (member) => {
      while (member.episode.endReason === null) await this.turn(member);
      member.episode.close();
    });
  }

  private async together(
    members: readonly Member[],
    work: (member: Member) => Promise<void>,
  ): Promise<void> {
    await mapBounded(members, members.length, work, this.deadline.fail);
    throwIfAborted(this.deadline, 'rollouts');
  }

  private async turn(member: Member): Promise<void> {
    member.undecided = await turn(member.episode, {
      key: [this.options.seed, this.index, member.index],
      temperature: this.options.settings.temperature,
      offered: this.offered,
      signal: this.deadline.signal,
    });
  }

  /** Opens siblings after the round's tool results, in turn order, while slots are free. */
  private decide(active: readonly Member[]): Member[] {
    const { settings, seed } = this.options;
    assert(settings.branch === 'paper', 'only the paper rule leaves slots to branches');
    const opened: Member[] = [];
    const inOrder = active
      .flatMap((member) => (member.undecided === null ? [] : [{ member, at: member.undecided }]))
      .sort((a, b) => a.at - b.at || a.member.index - b.member.index);
    for (const { member, at } of inOrder) {
      member.undecided = null;
      if (this.freeSlots === 0) break;
      const { steps } = member.episode;
      const deltaEntropy = steps[at + 1]?.deltaEntropy ?? 0;
      const probability = paperProbability(deltaEntropy, settings);
      const draw = uniform(seed, this.index, member.index, at, BRANCH_DRAW);
      const wanted = paperDecision(probability, settings.branchThreshold, draw);
      const siblings = wanted ? Math.min(settings.beamSize - 1, this.freeSlots) : 0;
      const stepId = (steps[at] as StepRecord).id;
      const trajectory = member.index;
      this.decisions.push({ trajectory, stepId, deltaEntropy, probability, siblings });
      for (let i = 0; i < siblings; i++) {
        opened.push(this.addMember(member.episode.fork(at), { member, at }));
      }
    }
    return opened;
  }

  private result(): RolloutGroup {
    const { context, settings, source, runId } = this.options;
    const id = context.newId('group');
    const trajectories = this.members.map(({ index, root, branch, episode }) => ({
      ...scoreEpisode(episode, this.task, settings.multiToolBonus, {
        source,
        trainingRunId: runId,
        groupId: id,
        branchedFromStepId: branch?.stepId ?? null,
      }),
      index,
      root,
      branch,
    }));
    return {
      id,
      task: this.task,
      trajectories,
      decisions: this.decisions,
      counts: countGroup(trajectories),
    };
  }
}

function countGroup(trajectories: readonly RolloutTrajectory[]): GroupCounts {
  const counts: GroupCounts = {
    rootRollouts: 0,
    branches: 0,
    toolCallsExecuted: 0,
    toolCallsSaved: 0,
    tokensSampled: 0,
    tokensShared: 0,
  };
  for (const { steps, branch } of trajectories) {
    const sharedSteps = branch === null ? 1 : branch.stepIndex + 1;
    const [shared, own] = [steps.slice(0, sharedSteps), steps.slice(sharedSteps)];
    if (branch === null) counts.rootRollouts++;
    else counts.branches++;
    counts.toolCallsExecuted += callsRun(own);
    counts.toolCallsSaved += callsRun(shared);
    counts.tokensSampled += policyTokens(own);
    counts.tokensShared += policyTokens(shared);
  }
  return counts;
}

/** Calls that reached a tool; a call of a tool that was not offered did not. */
function callsRun(steps: readonly StepRecord[]): number {
  return steps.filter(({ toolCall }) => toolCall !== null && toolCall.error !== 'unknown_tool')
    .length;
}
