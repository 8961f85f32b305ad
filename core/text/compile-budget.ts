/**
 * What one demanded form may take of the thread that compiles it, over all its tools and schemas. A
 * short request can demand much: what references repeat is compiled again.
 */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';

export class CompileBudget {
  private states = 0;
  private parts = 0;

  /** @throws AppError invalid_request when there are too many. */
  takeState(): void {
    this.states++;
    if (this.states > LIMITS.constraintStatesMax) {
      throw tooLarge(`needs more than ${LIMITS.constraintStatesMax} states`);
    }
  }

  /** @throws AppError invalid_request when there are too many. */
  takeParts(count: number): void {
    this.parts += count;
    if (this.parts > LIMITS.constraintPartsMax) {
      const what = 'schemas, members, required names, types and values';
      throw tooLarge(`has more than ${LIMITS.constraintPartsMax} ${what}`);
    }
  }
}

function tooLarge(why: string): AppError {
  return new AppError('invalid_request', `the output form ${why}; make it smaller`);
}
