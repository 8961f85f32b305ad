/**
 * The only place that knows onnxruntime-node: creates sessions from graphs, runs them, frees them.
 * `run` computes on the calling thread until it is done, so it is never used on the main thread.
 */
import * as ort from 'onnxruntime-node';
import { AppError } from '../errors.ts';
import type { Graph } from '../graph/graph.ts';
import { encodeModel, tensorFolder } from '../graph/onnx.ts';

export type Device = 'cpu' | 'cuda' | 'webgpu';

export interface SessionOptions {
  device: Device;
  /** Intra-op threads; 0 lets onnxruntime decide (all cores). */
  threads: number;
  /**
   * First part of the path of a JSON file in which onnxruntime writes what each node took and which
   * provider ran it; complete after `dispose`. Slows every run down; null: none.
   */
  profile?: string | null;
  /**
   * Whether onnxruntime, after a first run of some shapes, keeps one block as large as that run for
   * the next, besides what the first has left; on when left out.
   */
  memoryPattern?: boolean;
  /**
   * Threads spin while they wait for each other inside a run, and sleep between runs. Off when left
   * out: the trainer and the server share the cores.
   */
  spinning?: boolean;
}

export type TensorData = Float32Array | BigInt64Array | Uint8Array;

export interface TensorLike {
  dims: readonly number[];
  data: TensorData;
}

export type Feeds = Record<string, TensorLike>;

export interface ModelSession {
  /** Runs the graph. Outputs are by public name; their arrays belong to the caller. */
  run(feeds: Feeds, outputs?: readonly string[]): Promise<Record<string, TensorLike>>;
  dispose(): Promise<void>;
}

/**
 * Compiles a graph. Throws policy_invalid when tensors in files cannot be read, and `internal` when
 * onnxruntime refuses the graph: graphs are made by us.
 */
export async function createSession(graph: Graph, options: SessionOptions): Promise<ModelSession> {
  const folder = tensorFolder(graph);
  let session: ort.InferenceSession;
  try {
    session = await ort.InferenceSession.create(encodeModel(graph), {
      executionProviders: [options.device],
      intraOpNumThreads: options.threads,
      interOpNumThreads: 1,
      graphOptimizationLevel: 'all',
      enableMemPattern: options.memoryPattern ?? true,
      extra: {
        session: {
          intra_op: { allow_spinning: options.spinning ? '1' : '0' },
          force_spinning_stop: '1',
          ...(folder !== null && { model_external_initializers_file_folder_path: folder }),
        },
      },
      logSeverityLevel: 3,
      ...(options.profile && { enableProfiling: true, profileFilePrefix: options.profile }),
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    if (folder !== null) {
      // The files were checked when they were opened: they have changed, or cannot be mapped.
      throw new AppError('policy_invalid', `weights in ${folder}: ${reason}`, { cause });
    }
    throw new AppError('internal', `internal: onnxruntime refused a graph: ${reason}`, { cause });
  }
  return {
    async run(feeds, outputs) {
      const inputs: Record<string, ort.Tensor> = {};
      for (const [name, { dims, data }] of Object.entries(feeds))
        inputs[name] = toTensor(dims, data);
      const results = outputs ? await session.run(inputs, outputs) : await session.run(inputs);
      return results as unknown as Record<string, TensorLike>;
    },
    dispose: () => session.release(),
  };
}

function toTensor(dims: readonly number[], data: TensorData): ort.Tensor {
  if (data instanceof Float32Array) return new ort.Tensor('float32', data, dims);
  if (data instanceof BigInt64Array) return new ort.Tensor('int64', data, dims);
  return new ort.Tensor('bool', data, dims);
}
