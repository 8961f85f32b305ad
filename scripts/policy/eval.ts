/**
 * `npm run policy:eval [-- --policy DIR --split test --seed 1 --show 5]`: the held-out accuracy
 * that the model card states, and on demand some trajectories to read.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../core/paths.ts';
import type { TaskSplit } from '../../core/records.ts';
import { evaluatePolicy, evaluationTable, readTasks } from './evaluation.ts';

const { values: flags } = parseArgs({
  options: {
    policy: { type: 'string', default: join(packageRoot, 'policies', 'embedded') },
    split: { type: 'string', default: 'test' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
    show: { type: 'string', default: '0' },
  },
});

const tasks = readTasks(flags.split as TaskSplit);
const result = await evaluatePolicy(flags.policy, tasks, Number(flags.seed), Number(flags.threads));
console.log(evaluationTable(result));
const every = Math.floor(tasks.length / Math.max(1, Number(flags.show)));
for (let i = 0; i < Number(flags.show); i++) {
  const { task, steps, answer, reward } = result.trajectories[i * every]!;
  console.log(`\n${task.truths.join(' / ')} <- ${answer ?? 'no answer'} (reward ${reward})`);
  console.log(steps.map((step) => step.text).join(''));
}
