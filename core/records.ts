/**
 * The facts that ramify keeps: plain data, no behaviour. `core` makes them, `db` stores them, `api`
 * shows them. Steps form a forest (arpo.md section 1): a step's parent is the step before it, a
 * trajectory is the path from a root to its leaf, a branch is a second child of one step.
 */

/**
 * How the tokens of a policy step were drawn. Logged, so that ratios are right later on. An option
 * that is absent is off. They apply in this order, as in Hugging Face's logits processors:
 * penalties, bias, masks (constraint, minimum tokens), temperature, top-k, top-p, min-p.
 */
export interface SamplingParams {
  /** 0 means greedy. */
  temperature: number;
  /** Nucleus mass in (0, 1], of what top-k leaves; 1 = off. */
  topP: number;
  /** 0 = off. */
  topK: number;
  /** Key of the counter-based draws. */
  seed: number;
  /** Least probability, as a share of the likeliest token's; 0 = off. */
  minP?: number;
  /**
   * Over the tokens that the sequence holds, prompt included: a positive logit is divided by it, a
   * negative one multiplied; 1 = off.
   */
  repetitionPenalty?: number;
  /** Taken from the logit of every token that this step has sampled already. */
  presencePenalty?: number;
  /** The same, times how often it was sampled. */
  frequencyPenalty?: number;
  /** Added to logits, by token id (a decimal text, as JSON has it). */
  logitBias?: Record<string, number>;
  /** Stop tokens are not sampled before so many tokens. */
  minTokens?: number;
  /** What the step must spell; every other token is masked. */
  constraint?: Constraint;
}

export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** A form that sampled tokens must have, part after part; core/text/constraint.ts compiles it. */
export type Constraint = readonly ConstraintPart[];

export type ConstraintPart =
  /** One of these tokens. */
  | { kind: 'token'; anyOf: readonly number[] }
  /** This text, in any tokens that spell it and are not added tokens. */
  | { kind: 'text'; text: string }
  /** JSON that fits the schema. These ASCII characters are written as escapes in it. */
  | { kind: 'json'; schema: JsonSchema; escaped: string }
  /** Any text with a first character that is no space, which contains none of these texts. */
  | { kind: 'free'; without: readonly string[] }
  | { kind: 'oneOf'; options: readonly Constraint[] };

export type StepKind = 'prompt' | 'policy' | 'tool';

export interface ToolCallRecord {
  id: string;
  name: string;
  /**
   * JSON text, as the policy wrote it (tag protocol: `{"query": "..."}` made from the tag's body).
   */
  arguments: string;
  /** What the policy saw; null while a client has not answered yet. */
  result: string | null;
  /** An ErrorCode when the call failed; the policy saw the message in `result`. */
  error: string | null;
  durationMs: number;
  effects: 'none' | 'writes';
  served: 'live' | 'recorded' | 'client';
}

export interface StepRecord {
  id: string;
  parentId: string | null;
  /** Position on its path: 0 for the root. */
  index: number;
  kind: StepKind;
  /** The version that sampled it (policy) or for which it was rendered (prompt, tool). */
  policyVersion: number;
  /** Exactly the tokens that the policy sampled or was given; never re-encoded. */
  tokens: Uint32Array;
  /** ln p of each token, temperature 1, full vocabulary; null where nothing was sampled. */
  logprobs: Float32Array | null;
  /** Behaviour ln p under `sampling`; null when equal to `logprobs` (temperature 1, no cut). */
  behaviourLogprobs: Float32Array | null;
  /** Full-vocabulary entropy of each token at temperature 1, in nats. */
  entropies: Float32Array | null;
  sampling: SamplingParams | null;
  /**
   * H of arpo.md section 2 (mean over the first k tokens / ln V); null where nothing was sampled.
   */
  stepEntropy: number | null;
  /** H minus H_init of the trajectory; null where nothing was sampled. */
  deltaEntropy: number | null;
  text: string;
  toolCall: ToolCallRecord | null;
  /** Milliseconds since the epoch. */
  startedAt: number;
  durationMs: number;
}

export type TrajectorySource = 'live' | 'rollout' | 'replay' | 'eval';

export type EndReason =
  | 'answer'
  | 'stop'
  | 'tool_calls'
  | 'max_tool_calls'
  | 'max_tokens'
  | 'context'
  | 'cancelled'
  | 'failed';

/** Whose traffic it is where no key says so. */
export const DEFAULT_TENANT = 'default';

export interface TrajectoryRecord {
  id: string;
  /** Whose traffic it is; of what training and replays made, the default tenant's. */
  tenant: string;
  source: TrajectorySource;
  conversationId: string | null;
  leafStepId: string;
  policyVersion: number;
  taskId: string | null;
  trainingRunId: string | null;
  groupId: string | null;
  /** The step below which this trajectory branched off; null for a root rollout. */
  branchedFromStepId: string | null;
  status: 'completed' | 'cancelled' | 'failed';
  endReason: EndReason;
  answer: string | null;
  formatOk: boolean;
  /** From a verifier or the latest `reward` feedback; null = not scored, never trained on. */
  reward: number | null;
  toolCalls: number;
  sampledTokens: number;
  createdAt: number;
  /**
   * Digest of the conversation up to this trajectory's answer, by which a later chat request finds
   * it. Only written: records that are read from the log do not have it.
   */
  continuationKey?: string | null;
  /** Of a rollout: the training step that sampled it. Only written, like the key. */
  trainingStep?: number | null;
  /** What the client of a chat completion offered and said of it. Not among what lists read. */
  offer?: ClientOffer;
}

/** A function that a client runs. */
export interface ClientTool {
  name: string;
  description: string;
  /** JSON Schema of the arguments. */
  parameters: Record<string, unknown>;
}

export interface ClientOffer {
  /** Those that the policy was shown, in their order. */
  tools: readonly ClientTool[];
  metadata: Record<string, string> | null;
}

export interface Feedback {
  id: string;
  trajectoryId: string;
  stepId: string | null;
  metricName: string;
  value: number | boolean | string;
  tags: Record<string, string>;
  createdAt: number;
  /** It came after a training run had consumed the trajectory. Only read: the store finds out. */
  late?: boolean;
}

/** A live conversation with a reward, as the log has it. */
export interface LiveSample {
  /** `reward` is what its client said last. */
  trajectory: TrajectoryRecord;
  /** From the root to the leaf. */
  steps: StepRecord[];
  /** The messages that were asked, in one canonical text. */
  question: string;
  /** Names of this server's tools that it was offered. */
  tools: string[];
  /** Whether it was offered functions that its client runs. */
  clientTools: boolean;
}

export type TaskFamily = string;
export type TaskSplit = 'train' | 'gate' | 'test';

/** A question with a way to score the answer. */
export interface Task {
  id: string;
  family: TaskFamily;
  split: TaskSplit;
  question: string;
  /** Accepted answers; the best match counts. */
  truths: string[];
  verifier: 'qa-f1' | 'exact' | 'math';
  /** Names of the server tools that the task may use. */
  tools: string[];
  /** Free facts about the task (hops, chain), for reports. */
  metadata: Record<string, string | number>;
}

/**
 * candidate: not decided on; canary: answers a share of new conversations; active: answers the
 * rest; retired: was replaced; rejected: refused by the gate; rolled_back: was taken back.
 */
export type PolicyStatus =
  'candidate' | 'canary' | 'active' | 'retired' | 'rejected' | 'rolled_back';

export interface PolicyRecord {
  version: number;
  parentVersion: number | null;
  kind: 'full' | 'lora';
  /** Directory with config.json, model.safetensors, tokenizer.json. */
  path: string;
  sha256: string;
  sourceRunId: string | null;
  status: PolicyStatus;
  /** Held-out figures by family, as the gate measured them. */
  evaluation: GateReport | null;
  createdAt: number;
  /** When its files were deleted to make room; null while they are there. */
  removedAt: number | null;
}

/** What was decided about a policy version, and on what figures: rows are never changed. */
export interface PolicyDecision {
  id: string;
  kind: PolicyDecisionKind;
  /** The version that it is about. */
  version: number;
  /** Whom it was compared with, replaced or gave way to. */
  otherVersion: number | null;
  /** Who decided: the gate, live traffic, an operator, or the bound on kept files. */
  cause: 'gate' | 'live' | 'request' | 'retention';
  reason: string;
  figures: DecisionFigures;
  trainingRunId: string | null;
  createdAt: number;
}

export type PolicyDecisionKind =
  | 'gate_passed'
  | 'gate_rejected'
  | 'canary_started'
  | 'canary_ended'
  | 'activated'
  | 'rolled_back'
  | 'removed';

/** Those that the decision rests on. */
export interface DecisionFigures {
  gate?: GateReport;
  live?: LiveComparison;
  canary?: CanaryTerms;
}

/** How a canary serves, fixed when it starts. */
export interface CanaryTerms {
  /** Of new conversations, in (0, 1). */
  share: number;
  /** Finished conversations of the canary that are enough evidence. */
  conversations: number;
  /** Enough time without anything against it; null = only conversations count. */
  minutes: number | null;
}

/** What one version did in live conversations. */
export interface LiveOutcomes {
  version: number;
  /** That they were read from; a bounded number. */
  trajectories: number;
  /** Finished: not those that their client cancelled. */
  conversations: number;
  /** Of those, with a failed trajectory or one of wrong format. */
  errors: number;
  /** Mean reward of each rated conversation. */
  rewards: readonly number[];
}

/** Its figures; a conversation counts once, whatever its length. */
export interface LiveFigures {
  version: number;
  conversations: number;
  errors: number;
  rated: number;
  /** Mean over rated conversations; null when there is none. */
  rewardMean: number | null;
}

/** A version beside the one that it replaces or would replace, both in live traffic. */
export interface LiveComparison {
  base: LiveFigures;
  candidate: LiveFigures;
  /** Candidate minus base, with an interval that holds at any number of looks; null: too few. */
  reward: Interval | null;
  errorRate: Interval | null;
  tolerance: number;
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

/** The held-out comparison of a candidate with the policy that it would replace. */
export interface GateReport {
  passed: boolean;
  reason: string;
  tasks: number;
  /** Mean accuracy in [0, 1] and format error share, by family and over `all`. */
  base: Record<string, EvalScore>;
  candidate: Record<string, EvalScore>;
  /** Mean paired difference of accuracy and its bootstrap 95 % interval. */
  difference: Interval;
  tolerance: number;
  /** Sampled answers to each task; 1 when left out. */
  samples?: number;
}

export interface EvalScore {
  tasks: number;
  accuracy: number;
  formatErrors: number;
  toolCallsPerTask: number;
  /** Share of tasks that at least one of several samples answered right. */
  passAtK?: number;
  /** Accuracy of greedy answers, where those were asked for. */
  greedyAccuracy?: number;
}

export type TrainingStatus =
  'queued' | 'running' | 'completed' | 'rejected' | 'failed' | 'cancelled' | 'interrupted';

export interface TrainingCounts {
  rollouts: number;
  branches: number;
  toolCallsExecuted: number;
  toolCallsSaved: number;
  tokensSampled: number;
}

export interface TrainingRunRecord {
  id: string;
  status: TrainingStatus;
  trigger: 'request' | 'schedule';
  algorithm: 'arpo' | 'grpo';
  /** Every setting in force (defaults and overrides), by arpo.md's names. */
  settings: Record<string, unknown>;
  baseVersion: number | null;
  candidateVersion: number | null;
  step: number;
  steps: number;
  counts: TrainingCounts;
  gate: GateReport | null;
  error: string | null;
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  /** As it was asked for, with the seed drawn: what a resumed run starts from. Null: unknown. */
  request: Record<string, unknown> | null;
  /** Trainer processes since the last new step; a run that only ever dies is given up. */
  attempts: number;
}

/** One row of figures a training step (arpo.md section 8). */
export interface TrainingMetrics {
  runId: string;
  step: number;
  values: Record<string, number>;
  createdAt: number;
}

/** Messages that belong to one client session; knows where the next request of it continues. */
export interface ConversationRecord {
  id: string;
  /** A session key means one conversation of its tenant. */
  tenant: string;
  /** The client's `x-session-id`; null when the client named no session. */
  sessionKey: string | null;
  /** The newest live trajectory of the conversation; null before the first one. */
  lastTrajectoryId: string | null;
  createdAt: number;
  updatedAt: number;
}

export type AgentRunStatus =
  'queued' | 'in_progress' | 'requires_action' | 'completed' | 'failed' | 'cancelled';

/** What a run needs, beside its steps, to go on in another process. */
export interface AgentRunProgress {
  sampling: SamplingParams;
  /** While it waits for its client: all calls of the newest policy step. */
  calls: { id: string; name: string; arguments: string }[];
  /** Begin of the work under way, and milliseconds worked before that. */
  legStartedAt: number;
  workedMs: number;
  /** How often it was taken up at this step. */
  attempts: { leafStepId: string; count: number } | null;
}

/**
 * One server-run agent: what was asked, how far it is, and how it ended. Its steps are those on the
 * path to its newest one, which are all stored.
 */
export interface AgentRunRecord {
  id: string;
  tenant: string;
  status: AgentRunStatus;
  /** As the client named it. */
  model: string;
  policyVersion: number | null;
  /** The request body as it was validated. */
  request: Record<string, unknown>;
  trajectoryId: string | null;
  answer: string | null;
  usage: { promptTokens: number; completionTokens: number } | null;
  error: { code: string; message: string } | null;
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  conversationId: string | null;
  leafStepId: string | null;
  /** While it waits for its client: when it waits no longer. */
  waitsUntil: number | null;
  /** Null: it was made before runs could go on. */
  progress: AgentRunProgress | null;
  /** The key that its tokens count for; null: none was needed. */
  keyId: string | null;
}

export type ResponseStatus = 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled';

/** A part of a conversation in the form of the responses API, as its clients get it. */
export interface ResponseItem {
  id: string;
  type: string;
  [field: string]: unknown;
}

/** A stored answer of the responses API; its items are kept beside it. */
export interface ResponseRecord {
  id: string;
  tenant: string;
  status: ResponseStatus;
  policyVersion: number;
  /** What was asked for but the items, as the response repeats it. */
  settings: Record<string, unknown>;
  /** The response that it goes on from. */
  previousId: string | null;
  conversationId: string | null;
  /** The client's `x-session-id`, which responses that go on from it inherit. */
  sessionId: string | null;
  trajectoryId: string | null;
  /** The newest durable step of one at work; null: none is durable, or the trajectory is. */
  leafStepId: string | null;
  usage: {
    inputTokens: number;
    cachedTokens: number;
    outputTokens: number;
    reasoningTokens: number;
  } | null;
  error: { code: string; message: string } | null;
  incompleteReason: 'max_output_tokens' | 'max_tool_calls' | null;
  createdAt: number;
  completedAt: number | null;
}
