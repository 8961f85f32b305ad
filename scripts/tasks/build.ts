/**
 * Writes corpus/tasks/{train,gate,test}.jsonl. Run: `node dist/scripts/tasks/build.js`. The files
 * are committed; running this again gives the same bytes (tasks.test.ts compares them).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../core/paths.ts';
import { loadCountries } from '../corpus/countries.ts';
import { toJsonLines } from '../corpus/documents.ts';
import { buildFacts } from '../corpus/facts.ts';
import { buildTasks } from './tasks.ts';

const folder = join(packageRoot, 'corpus', 'tasks');
mkdirSync(folder, { recursive: true });
for (const [split, tasks] of Object.entries(buildTasks(buildFacts(loadCountries())))) {
  writeFileSync(join(folder, `${split}.jsonl`), toJsonLines(tasks));
  console.log(`${tasks.length} tasks -> corpus/tasks/${split}.jsonl`);
}
