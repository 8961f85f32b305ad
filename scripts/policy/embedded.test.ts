/**
 * The policy that ships: within its bounds, and able to use its tools on held-out tasks. The
 * figures of the model card come from `npm run policy:eval` over all test tasks; here a sample of
 * them shows that the files in the repository are the ones that the card speaks of.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parameterCount } from '../../core/model/parameters.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import { packageRoot } from '../../core/paths.ts';
import { evaluatePolicy, readTasks } from './evaluation.ts';

const DIRECTORY = join(packageRoot, 'policies', 'embedded');

describe('the embedded policy', () => {
  it('has at most 4 M parameters and 10 MB of weights', () => {
    const { config } = loadPolicyModel(DIRECTORY);
    expect(parameterCount(config)).toBeLessThan(4_000_000);
    expect(statSync(join(DIRECTORY, 'model.safetensors')).size).toBeLessThan(10_000_000);
  });

  it('answers held-out questions about as often as its card says', async () => {
    const card = readFileSync(join(DIRECTORY, 'README.md'), 'utf8');
    const stated = Number(/^\| all \| \d+ \| ([\d.]+) % /m.exec(card)?.[1]) / 100;
    expect(stated).toBeGreaterThan(0.2);
    const tasks = readTasks('test').filter((_, i) => i % 5 === 0);
    const { sampled } = await evaluatePolicy(DIRECTORY, tasks, 7, 1);
    const { accuracy, formatErrors, toolCallsPerTask } = sampled.all!;
    // Four standard errors of a share near 0.4 over this many tasks.
    const slack = 4 * Math.sqrt((stated * (1 - stated)) / tasks.length);
    expect(Math.abs(accuracy - stated)).toBeLessThan(slack);
    expect(formatErrors).toBeLessThan(0.15);
    expect(toolCallsPerTask).toBeGreaterThan(0.5);
  });
});
