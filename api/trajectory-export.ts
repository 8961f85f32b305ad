/**
 * The log as lines (trajectory-lines.ts), oldest trajectory first, from one snapshot. Siblings of a
 * forest share their first steps and mostly follow each other, so the text of a step is kept and
 * neither read nor written again. Synchronous: whoever calls decides between chunks who else works.
 */
import { must } from '../core/assert.ts';
import { LIMITS } from '../core/limits.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import type { LogReader } from '../db/log-reader.ts';
import type { TrajectoryFilter } from '../db/trajectory-filter.ts';
import { LineWriter } from './line-writer.ts';
import { writeStep, writeTrajectoryLine } from './trajectory-lines.ts';

export interface ExportChunk {
  /** Whole lines, each with its end. */
  bytes: Buffer<ArrayBuffer>;
  trajectories: number;
}

/**
 * Chunks of at least `chunkBytes`, the last one apart: 1 makes a chunk of every line. Memory holds
 * a chunk, a page of rows and the kept steps, however long the log is. For a reader on a connection
 * of its own.
 */
export function exportChunks(
  reader: LogReader,
  filter: TrajectoryFilter,
  chunkBytes: number,
): Generator<ExportChunk> {
  return lineChunks(
    reader,
    reader.snapshot(() => reader.trajectories(filter)),
    chunkBytes,
  );
}

/** The same of trajectories that someone else chooses. */
export function* lineChunks(
  reader: LogReader,
  chosen: Iterable<TrajectoryRecord>,
  chunkBytes: number,
): Generator<ExportChunk> {
  const writer = new LineWriter(2 * chunkBytes);
  const steps = new StepTexts(reader);
  let trajectories = 0;
  for (const trajectory of chosen) {
    const path = steps.path(trajectory.leafStepId);
    const feedback = reader.feedback(trajectory.id);
    const whole = { trajectory: { ...trajectory, offer: reader.offer(trajectory.id) }, feedback };
    writeTrajectoryLine(writer, whole, path, (to, text) => to.bytes(text));
    writer.text('\n');
    trajectories++;
    if (writer.length < chunkBytes) continue;
    yield { bytes: writer.take(), trajectories };
    trajectories = 0;
  }
  if (trajectories > 0) yield { bytes: writer.take(), trajectories };
}

interface StepText {
  text: Buffer;
  parentId: string | null;
}

/** Texts of steps, the most recently used ones kept. */
class StepTexts {
  private readonly reader: LogReader;
  private readonly writer = new LineWriter(16 * 1024);
  private readonly kept = new Map<string, StepText>();
  private bytes = 0;

  constructor(reader: LogReader) {
    this.reader = reader;
  }

  /** From the root to the leaf. */
  path(leafStepId: string): Buffer[] {
    const path: Buffer[] = [];
    for (let id: string | null = leafStepId; id !== null;) {
      const known = this.kept.get(id);
      if (known !== undefined) this.kept.delete(id);
      const step: StepText = known ?? this.read(id);
      this.kept.set(id, step);
      path.push(step.text);
      id = step.parentId;
    }
    return path.reverse();
  }

  private read(id: string): StepText {
    const step = must(this.reader.step(id), `step ${id} of a path`);
    writeStep(this.writer, step);
    const text = this.writer.take();
    this.bytes += text.length;
    for (const [oldest, { text: old }] of this.kept) {
      if (this.bytes <= LIMITS.exportStepBytesKept) break;
      this.kept.delete(oldest);
      this.bytes -= old.length;
    }
    return { text, parentId: step.parentId };
  }
}
