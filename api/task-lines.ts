/**
 * Task files: one JSON object a line, checked against the contract's TaskLine. Used by the import
 * call and for the tasks that ship with the package. Blank lines are skipped; the first wrong line
 * is told by its number.
 */
import { AppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { ToolRunner } from '../core/ports.ts';
import type { Task } from '../core/records.ts';
import type { Contract } from './contract/contract.ts';
import type { Schemas } from './handlers.ts';

/** @throws AppError task_invalid */
export function readTaskLine(
  contract: Contract,
  { number, text }: { number: number; text: string },
  newId: NewId,
): Task {
  return readLine(contract, text, number, newId);
}

/** @throws AppError task_invalid */
export function readTaskLines(contract: Contract, text: string, newId: NewId): Task[] {
  const tasks: Task[] = [];
  let number = 0;
  for (const line of text.split('\n')) {
    number++;
    if (line.trim() === '') continue;
    if (tasks.length === LIMITS.tasksPerImportMax) {
      throw invalid(number, `more than ${LIMITS.tasksPerImportMax} tasks in one import`);
    }
    tasks.push(readLine(contract, line, number, newId));
  }
  return tasks;
}

/** @throws AppError task_invalid that names a task whose tool is not offered here. */
export function requireTools(tasks: readonly Task[], tools: Pick<ToolRunner, 'has'>): void {
  for (const { id, tools: names } of tasks) {
    const name = names.find((tool) => !tools.has(tool));
    if (name === undefined) continue;
    throw new AppError('task_invalid', `task ${id}: no tool '${name}' on this server`);
  }
}

function readLine(contract: Contract, line: string, number: number, newId: NewId): Task {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw invalid(number, `not valid JSON: ${cause instanceof Error ? cause.message : ''}`, cause);
  }
  const mistake = contract.checkSchema('TaskLine', value);
  if (mistake !== null) throw invalid(number, mistake.message);
  const { id, family, split, question, truths, verifier, tools, metadata } =
    value as Schemas['TaskLine'];
  return {
    id: id ?? newId('task'),
    family,
    split,
    question,
    truths,
    verifier,
    tools: tools ?? [],
    metadata: metadata ?? {},
  };
}

function invalid(line: number, why: string, cause?: unknown): AppError {
  return new AppError('task_invalid', `line ${line}: ${why}`, { param: `line ${line}`, cause });
}
