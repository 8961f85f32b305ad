/**
 * Places for work of one kind, and of them a share that one key may hold, so that none takes all.
 * Who has no key may: there is nobody else.
 */
import { AppError } from '../core/errors.ts';

export interface KeyPlacesOptions {
  /** The kind of work, as messages name it. */
  what: string;
  max: number;
  keyMax: number;
}

export class KeyPlaces {
  private readonly options: KeyPlacesOptions;
  private readonly byKey = new Map<string | null, number>();
  private taken = 0;

  constructor(options: KeyPlacesOptions) {
    this.options = options;
  }

  /** Gives back how the place is left. @throws AppError queue_full, rate_limit_exceeded */
  enter(keyId: string | null): () => void {
    const { what, max, keyMax } = this.options;
    if (this.taken >= max) {
      throw new AppError('queue_full', `${this.taken} ${what} are under way; no more fit`);
    }
    const own = this.byKey.get(keyId) ?? 0;
    if (keyId !== null && own >= keyMax) {
      const message = `the key has ${own} ${what} under way, as many as it may have of ${max}`;
      throw new AppError('rate_limit_exceeded', message);
    }
    return this.take(keyId);
  }

  /** For work that was let in before: it goes on, whatever else does. */
  take(keyId: string | null): () => void {
    this.taken++;
    this.byKey.set(keyId, (this.byKey.get(keyId) ?? 0) + 1);
    return () => {
      this.taken--;
      const left = (this.byKey.get(keyId) ?? 1) - 1;
      if (left > 0) this.byKey.set(keyId, left);
      else this.byKey.delete(keyId);
    };
  }
}
