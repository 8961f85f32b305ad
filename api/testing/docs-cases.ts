/** Cases of the docs page and its files. */
import { expect } from 'vitest';
import type { Case } from './cases.ts';

const FILES = ['swagger-ui.css', 'swagger-ui-bundle.js', 'start.js'];

export const DOCS_CASES: Case[] = [
  {
    operation: 'getDocs',
    what: 'names its own files only, and lets the browser ask nobody else',
    status: 200,
    call: (h) => h.call('getDocs'),
    check: ({ text, headers }) => {
      const named = [...text.matchAll(/(?:src|href)="([^"]*)"/g)].map((match) => match[1]);
      expect(named.sort()).toEqual(['data:,', ...FILES.map((file) => `docs/${file}`)].sort());
      expect(text).toContain('<meta charset="utf-8" />');
      expect(headers.get('content-type')).toBe('text/html; charset=utf-8');
      const policy = headers.get('content-security-policy') ?? '';
      expect(policy.startsWith("default-src 'none';")).toBe(true);
      const sources = policy.split(';').flatMap((part) => part.trim().split(' ').slice(1));
      for (const source of sources) expect(["'none'", "'self'", 'data:']).toContain(source);
    },
  },
  ...FILES.map((file): Case => ({
    operation: 'getDocsFile',
    what: file,
    status: 200,
    call: (h) => h.call('getDocsFile', { path: { file } }),
    check: ({ text, headers }) => {
      expect(headers.get('content-type')).toMatch(/^text\/(css|javascript); charset=utf-8$/);
      expect(headers.get('cache-control')).toBe('public, max-age=86400');
      // Styles load what they name; a script loads only what the policy of the page lets it.
      const loaded = file.endsWith('.css') ? text.matchAll(/@import|url\(["']?(.{0,20})/g) : [];
      for (const [, target] of loaded) expect(target).toMatch(/^data:/);
      if (file === 'start.js') expect(text).toContain("url: 'openapi.yaml'");
    },
  })),
  {
    operation: 'getDocsFile',
    what: 'a file that is not one of the page',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('getDocsFile', { path: { file: '../package.json' } }),
  },
];
