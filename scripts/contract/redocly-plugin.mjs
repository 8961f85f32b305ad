/**
 * Teaches Redocly the extensions of openapi.yaml that hold schemas, so that these are linted too
 * and count as uses of what they name.
 */
export default function ramifyPlugin() {
  return {
    id: 'ramify',
    typeExtension: {
      oas3(types) {
        const { MediaType } = types;
        const extensions = { 'x-sse-data': 'Schema', 'x-line': 'Schema' };
        const properties = { ...MediaType.properties, ...extensions };
        return { ...types, MediaType: { ...MediaType, properties } };
      },
    },
  };
}
