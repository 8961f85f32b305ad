/**
 * What a case of the operation tests is: one call of one operation and the status and code that it
 * must get. The tests check that the cases together cover every status and code that the contract
 * documents.
 */
import type { Answer, Harness } from './harness.ts';
import type { OperationId } from '../contract/contract.ts';

export interface Case {
  operation: OperationId;
  what: string;
  status: number;
  /** The error code; none for a success. */
  code?: string;
  /** Gets the answer to judge; may set up first. */
  call: (h: Harness) => Promise<Answer>;
  /** More that must hold of the answer. */
  check?: (answer: Answer, h: Harness) => void | Promise<void>;
}
