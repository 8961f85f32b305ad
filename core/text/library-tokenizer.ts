/**
 * The part of @huggingface/tokenizers that we use, typed. The package's own declarations import
 * without file extensions, which strict ESM resolution cannot follow, so its exports have no types.
 */
import { Tokenizer as Untyped } from '@huggingface/tokenizers';

export interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  readonly pre_tokenizer: { pre_tokenize(text: string): string[] } | null;
}

/** From the objects in tokenizer.json and tokenizer_config.json; throws Error on broken ones. */
export function libraryTokenizer(file: object, config: object): LibraryTokenizer {
  const Constructor = Untyped as unknown as new (file: object, config: object) => LibraryTokenizer;
  return new Constructor(file, config);
}
