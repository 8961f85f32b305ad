/**
 * Every bound of the system, in one place, with its reason. Relations between bounds are asserted
 * when the module loads, so a changed number that breaks another one stops the server at start.
 */
import { assert } from './assert.ts';

export const LIMITS = {
  /** HTTP body. A 4,096-token conversation is about 20 kB; imports of task files need more. */
  bodyBytesMax: 8 * 1024 * 1024,
  /** Messages in one chat request: far above any context that the window could hold. */
  messagesMax: 1024,
  /** Tool definitions in one request. */
  toolsMax: 64,
  /** Characters of one message; longer text cannot fit the context window anyway. */
  messageCharsMax: 1_000_000,
  /** Sequences decoded in one batch; beyond about 64 rows the CPU gains no more tokens a second. */
  batchRowsMax: 64,
  /** Open sequences (each holds KV memory) in the policy worker. */
  sequencesMax: 512,
  /** Requests that wait for a batch row; more are answered 503 with Retry-After. */
  sampleQueueMax: 256,
  /**
   * Weights of a model whose batches are divided over threads (core/engine/decode-lanes.ts): every
   * lane reads them all, which costs little only while they stay in the last-level cache.
   */
  laneWeightBytesMax: 32 * 1024 * 1024,
  /** Each lane holds the weights once more. */
  lanesMax: 8,
  /** One run of a lane: a chunk of a few rows; a slow machine needs some seconds at most. */
  laneRunTimeoutMs: 120_000,
  /** Tokens of one prefill piece, so that a long prompt does not stall the other streams. */
  prefillTokensMax: 256,
  /** Tokens prefilled before others get their turn again, while nobody decodes. */
  prefillTurnTokensMax: 1_024,
  /** Turns that a request may be left out before it goes first once, whatever its class. */
  agingTurns: 16,
  /** Most tokens sampled in one run of the decode graph. */
  chunkTokens: 32,
  /** Fewer would cost more turns of the engine than they save waiting. */
  chunkTokensMin: 4,
  /** Tokens times rows times parameters of one run: about 0.1 s on two cores. */
  chunkWorkMax: 2e9,
  /** The same while a live answer begins, so that its first piece comes early. */
  firstChunkTokens: 4,
  /** Tool calls of one trajectory unless the request says otherwise (arpo.md section 3.4). */
  toolCallsDefault: 6,
  toolCallsMax: 64,
  toolTimeoutMs: 120_000,
  /** Longest text that a tool may return; the rest is cut and said to be cut. */
  toolResultCharsMax: 16_384,
  toolArgumentsCharsMax: 65_536,
  /** Checking them, for which the server stands still; by a sensible schema far below 1 ms. */
  toolArgumentsCheckMs: 250,
  /**
   * Compiling the schema of one tool, for which the server stands still: one of 2,000 characters
   * takes some 5 ms, one of 40,000 a quarter of a second, and one that means harm ten seconds.
   */
  toolSchemaCompileMs: 500,
  /** Those of one list of an MCP server, in slices; 512 small ones take less than a second. */
  toolSchemasCompileMs: 5_000,
  toolSchemaSliceMs: 10,
  /** One JavaScript call: run time, heap and output. */
  javascriptTimeoutMs: 2_000,
  javascriptHeapBytes: 32 * 1024 * 1024,
  /** Past its time-out the sandbox should have answered; after this the thread is replaced. */
  javascriptGraceMs: 500,
  javascriptStackBytes: 256 * 1024,
  /**
   * One Python call. Starting takes 30 ms alone, some libraries a second; memory is all that it may
   * map, and libraries for arrays map some hundred megabytes before they hold anything.
   */
  pythonTimeoutMs: 10_000,
  pythonMemoryBytes: 512 * 1024 * 1024,
  /** All that it may write to its /tmp, which is memory. */
  pythonFileBytes: 16 * 1024 * 1024,
  /** Far more than a result may have; beyond, the program is ended. */
  pythonOutputBytesMax: 1024 * 1024,
  /** Python programs at once: each may take a core and the memory above. */
  pythonConcurrencyMax: 4,
  /** What the kernel needs to end what was killed, and more. */
  pythonEndMs: 2_000,
  /** Calls at once of tools that bring no bound of their own, and of those of one MCP server. */
  toolConcurrencyMax: 16,
  toolGroupConcurrencyMax: 8,
  /** Before a call that failed by the world is made again; twice as long each further time. */
  toolRetryMs: 200,
  /** Calls that wait for a slot: of an active agent run one at most, and those of responses. */
  toolQueueMax: 256,
  /** Of them one key's, its responses' calls included: no fewer than its agent runs at work. */
  keyToolQueueMax: 128,
  /** A declared HTTP operation, redirects and tries included. */
  httpTimeoutMs: 30_000,
  httpConnectTimeoutMs: 10_000,
  httpRedirectsMax: 5,
  /** What of an answer is read: some times a result's characters, as those may take 4 bytes. */
  httpResponseBytesMax: 128 * 1024,
  httpHeaderBytesMax: 32 * 1024,
  /** Calls of one operation at once: more from one client annoy most services. */
  httpConcurrencyMax: 8,
  /** A document that is found whole; of a longer one a piece. */
  searchTextCharsMax: 2_000,
  /** Characters of one document: a chapter. More in one would be found and shown badly. */
  documentCharsMax: 100_000,
  /** Each is a tool. */
  collectionsMax: 256,
  /** All of one import over HTTP: some million documents. */
  collectionImportBytesMax: 4 * 1024 * 1024 * 1024,
  /** Documents that become durable together, some ten milliseconds of the server's thread. */
  documentsPerWrite: 100,
  documentCharsPerWrite: 250_000,
  /** How often the server looks for what other programs did to its collections. */
  collectionsPollMs: 1_000,
  /** Of a tool of an MCP server; the prompt holds it, and OpenAI's bound is the same. */
  toolDescriptionCharsMax: 1_024,
  toolSchemaCharsMax: 65_536,
  /** Tools of one MCP server; the largest published ones have about a hundred. */
  mcpToolsMax: 512,
  /** One message from an MCP server, pictures included, which are thrown away. */
  mcpMessageBytesMax: 8 * 1024 * 1024,
  /** One try to connect: a server that npx downloads first takes some ten seconds. */
  mcpConnectTimeoutMs: 30_000,
  /** How long the start of ramify waits for its MCP servers; the tools of later ones come later. */
  mcpStartWaitMs: 5_000,
  /** An MCP server that was lost is connected at once, and ever later while that fails. */
  mcpRestartDelaysMs: [100, 500, 2_000, 8_000, 30_000, 60_000],
  /** A connection that lasted so long was a good one: the next try comes at once again. */
  mcpStableMs: 60_000,
  /** Between two lists of the tools of a server that says again and again that they changed. */
  mcpListPauseMs: 100,
  /** And at least so many times what the last one took, up to a bound: it may be made to cost. */
  mcpListPauseRatio: 10,
  mcpListPauseMaxMs: 60_000,
  /** After the end of input and after SIGTERM a server has so long to end. */
  mcpCloseStepMs: 500,
  /** What a process that has ended still had to say comes within this. */
  mcpDrainMs: 100,
  /** Characters of a server's error output kept for the log. */
  mcpStderrCharsMax: 2_048,
  /** How often an MCP client that asked for it hears that a call still runs: many wait 60 s. */
  mcpProgressMs: 5_000,
  /** An agent run, from request to answer. */
  agentRunTimeoutMs: 600_000,
  agentRunsActiveMax: 256,
  /** Of these, and of the two other bounds of runs, one key has half: others always get theirs. */
  keyAgentRunsActiveMax: 128,
  /** Runs that wait for results of their clients; each keeps its steps in memory, 10 to 100 kB. */
  agentRunsWaitingMax: 1_024,
  keyAgentRunsWaitingMax: 512,
  /** How long a run waits for those results. */
  agentRunWaitMs: 600_000,
  /** How often runs that waited too long are looked for. */
  agentRunSweepMs: 1_000,
  /** Times in a row that a run is taken up at the same step after its server or engine stopped. */
  agentRunAttemptsMax: 5,
  /** Pause before a run that could not be taken up, as the engine was busy, is tried again. */
  agentRunRetryMs: 1_000,
  /** Such pauses that a run waits for its tools then: time for an MCP server to list them. */
  agentRunToolWaitsMax: 60,
  /** One sampling request; the client's own default timeout is 10 minutes. */
  sampleTimeoutMs: 600_000,
  workerStartTimeoutMs: 60_000,
  workerStopTimeoutMs: 5_000,
  /** Trying one device: the first use of a GPU compiles its programs, some seconds at worst. */
  deviceProbeTimeoutMs: 20_000,
  /** What a trial of a device prints: some kilobytes of figures, and what its driver has to say. */
  childOutputCharsMax: 1024 * 1024,
  /** Loading a version: a checkpoint of some gigabytes is read and packed. */
  workerCallTimeoutMs: 600_000,
  /** A policy worker that does not end a cancelled sample for so long hangs, and is replaced. */
  workerSilenceMs: 60_000,
  /** A dead policy worker is replaced at once, and later each time that its successor dies too. */
  workerRestartDelaysMs: [0, 500, 2_000, 8_000, 30_000],
  /** Writes gather at most this long before one durable commit (ARCHITECTURE.md, "Data"). */
  groupCommitMs: 8,
  groupCommitRowsMax: 2_000,
  /** How long a write waits for another program that holds the database, a backup for instance. */
  databaseBusyTimeoutMs: 5_000,
  /** Trajectories of one tree answer; a training group has 16, a long conversation some hundred. */
  treeTrajectoriesMax: 1_000,
  /** Steps of one tree answer, and those that are looked at for it: some tens of milliseconds. */
  treeStepsMax: 5_000,
  /**
   * Different held-out tasks below which the gate refuses: its interval is over tasks, and of few
   * it is too narrow. With 120 answers in all, a candidate that is right 42 times of 100 passed
   * against a base that is right 50 times in 17 % of 1,000 draws on one task, in 7 % on two, 2 % on
   * three, 1.4 % on five and 0.1 % on twenty.
   */
  gateTasksMin: 20,
  /** Training runs that wait behind the active one. */
  trainingQueueMax: 4,
  trainingStepsMax: 10_000,
  trainerStopTimeoutMs: 10_000,
  /** How often the trainer says that it is alive, between computations that let it say nothing. */
  trainerBeatMs: 1_000,
  /** Of the longest such one: a step over a large model on few cores. Then it hangs. */
  trainerSilenceMs: 1_800_000,
  /** Steps that rollouts may lag behind the update; each holds the trained weights once more. */
  rolloutLagMax: 16,
  /** Events of the trainer that the server has not written yet; then the trainer waits. */
  trainerEventsMax: 4,
  /** Characters of the trainer's error output kept for the message of a run that died. */
  trainerStderrCharsMax: 4_096,
  /**
   * Tokens of one forward and backward run, padding included. With the embedded policy 2,048 take
   * 0.6 to 0.9 GB and 4,096 twice that, at the same tokens a second.
   */
  trainTokensPerRunMax: 2_048,
  /** Logits of one such run, the largest tensor at a large vocabulary; several copies are alive. */
  trainLogitBytesMax: 128 * 1024 * 1024,
  /** What a training run may hold of the machine's memory: the server and the system need some. */
  trainMemoryShareMax: 0.8,
  /** What the layers of one such run keep for the way back: 640 tokens of a 0.5 B model. */
  trainActivationBytesMax: 2 * 1024 * 1024 * 1024,
  /**
   * A JSON file of a checkpoint: its config, the index of its shards, the header of a safetensors
   * file. Some 60,000 tensors; the largest models have a few thousand.
   */
  modelJsonBytesMax: 8 * 1024 * 1024,
  /** Nesting of such a file; published ones stay below ten. */
  jsonDepthMax: 64,
  /** One file of texts, as tokenizer.json, of which the largest published have some 35 MB. */
  policyTextBytesMax: 128 * 1024 * 1024,
  /** Token ids; the largest published vocabularies have 262,144. */
  vocabularyMax: 2 ** 21,
  /** Files of one checkpoint; the largest models come in some hundred. */
  checkpointShardsMax: 1_024,
  /**
   * From so many bytes of float32 weights on a model is served in place and in one session: held
   * twice it would hurt, and a run a token costs nothing that shows (docs/performance.md).
   */
  largeModelBytes: 256 * 1024 * 1024,
  /**
   * Blocks of memory from here on are mapped by themselves, so that freed ones go back to the
   * system at once: glibc's own bound rises to 32 MB, and a load would keep what it has freed.
   */
  mallocMapBytes: 4 * 1024 * 1024,
  /** Free memory that glibc may keep; with a bound above set, its own would be 128 kB, and slow. */
  mallocTrimBytes: 64 * 1024 * 1024,
  /** Rank of a LoRA adapter; above some hundreds it is no small change of the weights any more. */
  loraRankMax: 1_024,
  /** Replays over HTTP at once, each of up to LIMITS.batchRowsMax paths; more are told to wait. */
  replaysMax: 4,
  /** Of them one key has half at most, so that others get theirs. */
  keyReplaysMax: 2,
  replayTimeoutMs: 600_000,
  /** All rollouts of one training step, or one held-out evaluation, on the slowest machine. */
  rolloutTimeoutMs: 3_600_000,
  /** Events of a run kept for Last-Event-ID. */
  eventsPerRunMax: 10_000,
  pageItemsDefault: 20,
  pageItemsMax: 100,
  /** Microseconds of looking at rows before others get their turn, by the costs of leads. */
  listSliceMicros: 4_000,
  /** Of the first slice, which fills most pages. */
  listFirstSliceMicros: 1_000,
  /** Of a whole page; beyond, it ends early and its cursor goes on. */
  listPageMicros: 24_000,
  /** Rows counted of each condition of a list to find the rarest, more where that is not enough. */
  listRowsCounted: [500, 4_000, 16_000],
  tasksPerImportMax: 100_000,
  /** Tasks read in one piece for a training run, some milliseconds. */
  taskRowsPerRead: 500,
  /** A line of a file: a trajectory of 131,072 tokens with all its figures takes some 8 MB. */
  fileLineCharsMax: 64 * 1024 * 1024,
  /**
   * A line of an import over HTTP: parsing one of this size takes 0.1 s of the server's thread. The
   * command line takes longer ones.
   */
  importLineCharsMax: 8 * 1024 * 1024,
  /** All of a streamed import: 20 million steps; more would be the work of days. */
  importBytesMax: 64 * 1024 * 1024 * 1024,
  /** All of an import of tasks, which are in memory until the last line is checked. */
  importTaskBytesMax: 64 * 1024 * 1024,
  /** A client that sends nothing for so long has lost its import. */
  importStallMs: 60_000,
  /** A request until its last byte, for an import of very many rows; others have bodyTimeoutMs. */
  requestTimeoutMs: 6 * 3_600_000,
  /** A body that is not streamed: 8 MiB over a slow line. */
  bodyTimeoutMs: 300_000,
  /** Wrong lines of one import of tasks that its answer names. */
  importMistakesTold: 20,
  /** Lines of an import that are checked before others get their turn. */
  importLinesPerTurn: 50,
  /** Trajectories of an imported file that become durable together; bounds memory. */
  trajectoriesPerWrite: 20,
  /** How often a log that is to be kept small is looked at; a look that finds some makes a file. */
  logLookMs: 600_000,
  /** The first look: a server that has just started has other work. */
  logFirstLookMs: 5_000,
  /** The same while a training run needs the log as it is; such a look costs nothing. */
  logWaitMs: 10_000,
  /** Old trajectories looked at before others get their turn: 3 ms. */
  logRowsPerRead: 50,
  /** Old trajectories of one file of the archive, and so the figures of them in memory. */
  logPieceTrajectories: 10_000,
  /** Of their rows in one file, which then has some 25 MB. */
  logPieceBytes: 32 * 1024 * 1024,
  /**
   * Of the bound, how much more goes once a database is over it: sizes are only about right, and
   * without it each look would end with files of a few trajectories.
   */
  logSlackShare: 1 / 64,
  /**
   * New steps of one deletion, and so about what it deletes: 5 ms, and the disk's. Steps that
   * several trajectories share all go with the last of them, up to a piece's at once.
   */
  removedStepsPerWrite: 100,
  /** Rows looked at for those that have lost their trajectory, before others get their turn. */
  leftOverRowsPerWrite: 200,
  /** Pages that go back to the file system in one piece: 1 MiB. */
  freedPagesPerWrite: 256,
  /**
   * How long a trajectory is kept that a request goes on from: no such request takes longer until
   * it has stored a step below it.
   */
  recentUseMs: 1_200_000,
  /** Such trajectories in memory, some 100 bytes each; more requests a second than this serves. */
  recentUsesMax: 200_000,
  /** Exports at once: each holds a thread, a connection and a snapshot of the database. */
  exportsMax: 2,
  exportRetryAfterS: 10,
  /** Lines that cross to the server's thread together: few messages, little memory. */
  exportChunkBytes: 256 * 1024,
  /** Chunks that wait for the client. */
  exportChunksAhead: 4,
  /** Texts of steps kept by an export: the shared prefixes of many forests. */
  exportStepBytesKept: 16 * 1024 * 1024,
  /** A client that takes nothing for so long has lost its export. */
  exportStallMs: 60_000,
  /** Streams open at once, over all keys; each holds a socket and some kilobytes. */
  eventStreamsMax: 1_024,
  /** Of one key, so that none can take them all. */
  keyStreamsMax: 256,
  /** A stream is ended after this; who follows a run comes back with Last-Event-ID. */
  streamLifeMs: 3_600_000,
  /** A client that takes nothing of its stream for so long is gone. */
  streamStallMs: 60_000,
  /** Line and headers of one request: Node's own default. */
  headerBytesMax: 16 * 1024,
  /** Sockets; streams keep theirs, and short requests need some beside them. */
  connectionsMax: 2_048,
  /** A client has so long to send the head of a request, which is one packet or two. */
  headersTimeoutMs: 10_000,
  /** How often sockets are looked at for these two. */
  connectionsCheckMs: 1_000,
  /** Keys on record, revoked ones too; all are in memory, about 1 kB each. */
  keysMax: 10_000,
  /** How exact the last use of a key is: a write a minute costs nothing. */
  keyUsedWriteMs: 60_000,
  /** Days for which the tokens of each key are kept. */
  usageDaysKept: 400,
  /** Rows of the audit log, about 1 kB each; the oldest go. */
  auditRowsMax: 100_000,
  /** Characters of one text in an audit row. */
  auditTextCharsMax: 200,
  /** Characters of all that a row says of a request. */
  auditRequestCharsMax: 2_000,
  /** Silence on an event stream before a comment line, shorter than common proxy time-outs. */
  heartbeatMs: 10_000,
  /** Agent runs whose events are kept in memory after their end. */
  agentRunsKeptMax: 256,
  /**
   * JSON of ended responses, and of the requests of ended agent runs, in memory for followers: some
   * thousand usual ones, or a few whose tools are as large as a body may be.
   */
  endedCharsMax: 32 * 1024 * 1024,
  /** JSON of the requests of agent runs at work or waiting; 10 kB is a usual one. */
  agentRunCharsMax: 128 * 1024 * 1024,
  keyAgentRunCharsMax: 64 * 1024 * 1024,
  /** Events of one response, which may have one a token. */
  responseEventsMax: 200_000,
  /** Policy versions loaded side by side: the active one and pinned or draining ones. */
  policiesLoadedMax: 3,
  /** Files of a version that stays loaded after another took its place: rolled back at once. */
  readyPolicyBytesMax: 256 * 1024 * 1024,
  /** Rows of a training step written in one piece, so that live requests get their turn between. */
  rolloutRowsPerWrite: 24,
  /** Conversations of either side below which live traffic proves nothing about a version. */
  liveRatedMin: 10,
  /**
   * Newest live trajectories of a version that are looked at, a read of 2 ms. A new version that
   * has so many is watched no longer: what changes later is not its own doing.
   */
  liveTrajectoriesMax: 1_000,
  /** How often live traffic is looked at while a version is a canary or new. */
  livePollMs: 1_000,
  /** Newest ratings that a training run is fed with: about 10 kB of steps each. */
  liveSamplesMax: 1_000,
  /** Conversations read for a run before others get their turn: about a millisecond each. */
  liveSamplesPerRead: 8,
  /** Versions between a logged conversation and the policy that is trained on it, at most. */
  liveStalenessMax: 8,
  /** Trainer processes of one run in a row that end without a new step; then it has failed. */
  trainingAttemptsMax: 5,
  /** A trainer that died is started again after this, so that one that only dies costs little. */
  trainerRestartMs: 1_000,
  /** How often the training schedule is looked at. */
  schedulePollMs: 5_000,
  /** States of a compiled output form, about 200 bytes each: a very large JSON schema has some. */
  constraintStatesMax: 50_000,
  /**
   * Schemas, members, required names, types and values of an output form. What is of use takes
   * states of its own, mostly more; repetitions take none, and compiling them takes time.
   */
  constraintPartsMax: 50_000,
  /** Calls of rules inside one another; a level of nested JSON takes one or two. */
  constraintDepthMax: 64,
  /** Positions of one output form that are remembered, and of them those with a token mask. */
  constraintPositionsMax: 2_000,
  /**
   * Ways of reading one text that a constraint keeps open; a schema may double them at each byte.
   */
  constraintWaysMax: 4_096,
  constraintMasksMax: 128,
  /** Compiled output forms kept by a policy version for the next request that has the same. */
  constraintsKeptMax: 8,
  /**
   * Runs of one token that rows with shaped logits get beside a chunk of the others: so they sample
   * some tokens a turn, and the others wait little.
   */
  shapedRunsMax: 4,
  /** Choices of one chat completion; each samples in a row of its own. */
  choicesMax: 16,
  /** How long an answer is given again for its Idempotency-Key. */
  idempotencyKeptMs: 24 * 3_600_000,
  /** A call waits so long for the first one with its key; proxies give up after some 30 s. */
  idempotencyWaitMs: 20_000,
  /** One kept answer: 16 choices of 1,000 tokens each with their likeliest ones, or long text. */
  keptAnswerBytesMax: 4 * 1024 * 1024,
  /** Kept answers of a tenant; with 4 kB counted for each row, some thousands. */
  keptAnswersBytesMax: 32 * 1024 * 1024,
  /** Old answers deleted when one is kept, so that none waits long for it. */
  keptAnswersForgottenMax: 100,
  shutdownTimeoutMs: 10_000,
  retryAfterS: 1,
} as const;

assert(LIMITS.batchRowsMax <= LIMITS.sequencesMax, 'a batch row needs a sequence');
assert(LIMITS.keptAnswerBytesMax < LIMITS.keptAnswersBytesMax, 'one answer has room');
assert(LIMITS.recentUseMs > LIMITS.sampleTimeoutMs, 'what a request goes on from outlasts it');
assert(LIMITS.recentUseMs > LIMITS.replayTimeoutMs, 'what a replay goes on from outlasts it');
assert(LIMITS.groupCommitMs <= 10, 'ARCHITECTURE.md promises a commit within 10 ms');
assert(LIMITS.toolCallsDefault <= LIMITS.toolCallsMax, 'the default is within the bound');
assert(LIMITS.javascriptTimeoutMs < LIMITS.toolTimeoutMs, 'the sandbox gives up before its caller');
assert(LIMITS.httpTimeoutMs <= LIMITS.toolTimeoutMs, 'the default is within the bound');
assert(LIMITS.httpResponseBytesMax > 4 * LIMITS.toolResultCharsMax, 'what is cut is seen to be');
assert(LIMITS.pythonTimeoutMs < LIMITS.toolTimeoutMs, 'the sandbox gives up before its caller');
assert(LIMITS.toolQueueMax >= LIMITS.agentRunsActiveMax, 'every agent run may wait for a tool');
assert(LIMITS.keyToolQueueMax >= LIMITS.keyAgentRunsActiveMax, 'so may every one of a key');
assert(2 * LIMITS.keyAgentRunsActiveMax <= LIMITS.agentRunsActiveMax, 'a key has half at most');
assert(LIMITS.eventStreamsMax < LIMITS.connectionsMax, 'streams leave sockets for requests');
assert(LIMITS.pageItemsDefault <= LIMITS.pageItemsMax, 'the default page is within the bound');
