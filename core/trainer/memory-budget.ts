/**
 * How many tokens fit one forward and backward run, and whether a job fits the memory at all, told
 * before it starts instead of by the system's killer in the middle.
 */
import { totalmem } from 'node:os';
import type { ArpoSettings } from '../arpo/settings.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { parameterCount } from '../model/parameters.ts';
import type { ModelConfig } from '../model/types.ts';

/** Numbers that a layer keeps of a token, in its widths: about so many of each. */
const KEPT_HIDDEN = 12;
const KEPT_INTERMEDIATE = 5;
/** Of all weights that are trained: themselves, two moments, a run's gradients and their sum. */
const FULL_COPIES = 5;

/** Tokens of one micro-batch, padding included: a bound on time and on what its layers keep. */
export function tokensPerRun({
  layers,
  hidden,
  intermediate,
}: Pick<ModelConfig, 'layers' | 'hidden' | 'intermediate'>): number {
  const kept = 4 * layers * (KEPT_HIDDEN * hidden + KEPT_INTERMEDIATE * intermediate);
  const fitting = Math.floor(LIMITS.trainActivationBytesMax / kept);
  return Math.max(1, Math.min(LIMITS.trainTokensPerRunMax, fitting));
}

/** Predictions of one micro-batch that pass through the head: a bound on its logits. */
export function predictionsPerRun({ vocabulary }: Pick<ModelConfig, 'vocabulary'>): number {
  return Math.max(1, Math.floor(LIMITS.trainLogitBytesMax / (4 * vocabulary)));
}

type HeldSettings = Pick<ArpoSettings, 'training' | 'rolloutLag' | 'klCoefficient'>;

/**
 * Refuses a run that cannot fit: counted is what it surely holds, the arrays of the size of the
 * model, and neither the sampler's copy nor what a run over tokens takes. An adapter is small; its
 * base is held once. Throws invalid_request.
 */
export function checkMemory(
  config: ModelConfig,
  settings: HeldSettings,
  memoryBytes: number = machineShare(),
): void {
  const bytes = 4 * parameterCount(config);
  const held = copies(settings) * bytes;
  if (held <= memoryBytes) return;
  const advice =
    settings.training === 'full' ? `; training 'lora' would hold ${gigabytes(bytes)}` : '';
  throw new AppError(
    'invalid_request',
    `memoryBytes ${memoryBytes} is too small: training '${settings.training}' with rolloutLag ` +
      `${settings.rolloutLag} and klCoefficient ${settings.klCoefficient} holds at least ` +
      `${gigabytes(held)} of this policy, and may take ${gigabytes(memoryBytes)}${advice}`,
    { param: 'memoryBytes' },
  );
}

function copies({ training, rolloutLag, klCoefficient }: HeldSettings): number {
  if (training === 'lora') return 1;
  const lagging = rolloutLag > 0 ? 1 + rolloutLag : 0;
  return FULL_COPIES + lagging + Number(klCoefficient > 0);
}

function machineShare(): number {
  const allowed = process.constrainedMemory?.() ?? 0;
  const there = allowed > 0 ? Math.min(allowed, totalmem()) : totalmem();
  return Math.floor(LIMITS.trainMemoryShareMax * there);
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toPrecision(3)} GB`;
