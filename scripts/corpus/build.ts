/**
 * Writes corpus/documents.jsonl. Run: `node dist/scripts/corpus/build.js`. The file is committed;
 * running this again gives the same bytes (documents.test.ts compares them).
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../core/paths.ts';
import { buildDocuments, toJsonLines } from './documents.ts';

const path = join(packageRoot, 'corpus', 'documents.jsonl');
const documents = buildDocuments();
writeFileSync(path, toJsonLines(documents));
console.log(`${documents.length} documents -> corpus/documents.jsonl`);
