/** One line of text for each event of a training run. */
import type { TrainingEvent } from './training.ts';

export function progressLine(event: TrainingEvent, steps: number): string {
  switch (event.type) {
    case 'run.created':
      return `training run ${event.run.id}: ${event.run.algorithm}, ${steps} steps`;
    case 'run.started':
      return `measuring the gate's tasks with version ${event.run.base_version ?? '?'}`;
    case 'step.completed':
      return stepLine(event.step, steps, event.values);
    case 'gate.completed': {
      const { mean, low, high } = event.gate.difference;
      return (
        `gate: ${event.gate.passed ? 'passed' : 'refused'}, ${event.gate.tasks} tasks, accuracy ` +
        `${points(mean)} points (95 % interval ${points(low)} to ${points(high)})`
      );
    }
    case 'policy.decided':
      return `version ${event.decision.version}: ${event.decision.kind} (${event.decision.reason})`;
    case 'run.completed':
    case 'run.failed': {
      const { status, error } = event.run;
      return `training run ${status}${error === null ? '' : `: ${error}`}`;
    }
  }
}

function stepLine(step: number, steps: number, values: Readonly<Record<string, number>>): string {
  const { reward_mean: reward = 0, accuracy = 0, format_error_share: format = 0 } = values;
  const { tool_calls_executed: calls = 0, branches = 0 } = values;
  const ms = (values['rollout_ms'] ?? 0) + (values['update_ms'] ?? 0) + (values['reload_ms'] ?? 0);
  return [
    `step ${String(step).padStart(String(steps).length)}/${steps}`,
    `reward ${reward.toFixed(2).padStart(5)}`,
    `accuracy ${percent(accuracy)}`,
    `format errors ${percent(format)}`,
    `branches ${String(branches).padStart(3)}`,
    `tool calls ${String(calls).padStart(4)}`,
    `${(ms / 1_000).toFixed(1)} s`,
  ].join('  ');
}

const percent = (share: number): string => `${(100 * share).toFixed(1).padStart(5)} %`;

const points = (share: number): string => `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)}`;
