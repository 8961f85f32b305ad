/**
 * What an MCP tool answered, as the text that the policy reads. Pictures, sound and binary
 * resources are named, not shown: no policy here reads them.
 */
import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';

type Block = CallToolResult['content'][number];

export function resultText({ content, structuredContent }: CallToolResult): string {
  const texts = content.map(blockText).filter((text) => text !== '');
  // Servers are to repeat structured content as text, so it is read only where there is none.
  const hasText = content.some(({ type }) => type === 'text' || type === 'resource');
  if (structuredContent !== undefined && !hasText) texts.push(JSON.stringify(structuredContent));
  return texts.length === 0 ? 'no content' : texts.join('\n');
}

function blockText(block: Block): string {
  switch (block.type) {
    case 'text':
      return block.text;
    case 'image':
    case 'audio':
      return notShown(block.type, block.mimeType, block.data);
    case 'resource_link':
      return `[resource ${block.uri}: ${block.title ?? block.name}]`;
    case 'resource': {
      const { resource } = block;
      if ('text' in resource) return resource.text;
      return notShown(`resource ${resource.uri}`, resource.mimeType, resource.blob);
    }
  }
}

function notShown(what: string, mediaType: string | undefined, base64: string): string {
  const bytes = Math.floor((base64.length * 3) / 4);
  return `[${what}${mediaType === undefined ? '' : ` of type ${mediaType}`}, ${bytes} bytes, not shown]`;
}
