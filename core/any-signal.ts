/**
 * One abort signal of several. Not AbortSignal.any: Node 20 keeps what that returns for ever once
 * it has a listener. The sources keep a listener instead, so they must end with the work.
 */
export function anySignal(sources: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  for (const source of sources) {
    const abort = (): void => controller.abort(source.reason);
    if (source.aborted) abort();
    else source.addEventListener('abort', abort, { once: true });
  }
  return controller.signal;
}
