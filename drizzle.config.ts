/**
 * Settings of drizzle-kit: `npx drizzle-kit generate` writes the next migration from db/schema.ts.
 */
import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'sqlite',
  schema: './db/schema.ts',
  out: './migrations',
});
