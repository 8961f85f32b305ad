/**
 * Markdown files as documents for search: one a section, so that what is found is what was asked
 * for and not the whole file. Only headings (`#` to `######`) and fences are understood; links and
 * emphasis stay as they are written.
 */
import { LIMITS } from '../../core/limits.ts';
import type { SearchDocument } from '../../db/search-index.ts';

/**
 * Sections that say something. Ids are of the path and the headings, so that a file that is read
 * again replaces its own; a second section of the same headings gets a number.
 */
export function markdownDocuments(path: string, text: string): SearchDocument[] {
  const documents: SearchDocument[] = [];
  const counts = new Map<string, number>();
  const trail: string[] = [];
  let lines: string[] = [];
  const end = (): void => {
    const body = lines.join('\n').trim();
    lines = [];
    if (body === '') return;
    const headings = trail.filter((heading) => heading !== '');
    for (let start = 0; start < body.length; start += LIMITS.documentCharsMax) {
      const name = [path, ...headings.map(slug)].join('#').slice(0, ID_CHARS_MAX);
      const count = (counts.get(name) ?? 0) + 1;
      counts.set(name, count);
      documents.push({
        id: count === 1 ? name : `${name}-${count}`,
        title: [...headings].join(' > ').slice(0, TITLE_CHARS_MAX) || path,
        text: body.slice(start, start + LIMITS.documentCharsMax),
      });
    }
  };
  let fence: string | null = null;
  for (const line of text.replace(/^---\n[\s\S]*?\n---\n/, '').split(/\r?\n/)) {
    const [, mark] = /^ {0,3}(`{3,}|~{3,})/.exec(line) ?? [];
    if (fence === null) fence = mark ?? null;
    else if (mark !== undefined && mark.startsWith(fence)) fence = null;
    const [, level = '', heading = ''] =
      (fence === null && /^(#{1,6})\s+(.*?)\s*#*\s*$/.exec(line)) || [];
    if (level === '') {
      lines.push(line);
      continue;
    }
    end();
    trail.length = Math.min(trail.length, level.length - 1);
    while (trail.length < level.length - 1) trail.push('');
    trail.push(heading);
  }
  end();
  return documents;
}

/** The contract allows 200; a number may follow. */
const ID_CHARS_MAX = 190;
const TITLE_CHARS_MAX = 1_000;

function slug(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}]+/gu, '-')
    .replaceAll(/^-|-$/g, '');
}
