/**
 * Keys that keep the draws of the parts of a run apart. Every draw of a run is a function of (run
 * seed, one of these keys, step, ...), so a run that was interrupted needs no generator's state to
 * go on as if nothing had happened.
 */
export const SEEDS = {
  tasks: 1,
  rollouts: 2,
  gateTasks: 3,
  gate: 4,
  bootstrap: 5,
  adapter: 6,
  /** Groups drawn in the place of ones that teach nothing. */
  replacements: 7,
  curriculum: 8,
  /** Order of live questions, and their groups. */
  questions: 9,
  rebuilt: 10,
} as const;
