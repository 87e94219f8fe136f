import { createClient } from "graphql-sse";

export default async ({ url }, report) => {
  const client = createClient({ url, retryAttempts: 0 });
  for await (const { data, errors } of client.iterate({ query: "subscription { word }" })) {
    if (errors) report({ error: errors[0].message });
    else report({ data: data.word });
  }
  report({ end: true });
};
