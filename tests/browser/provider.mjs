// A real OAuth server on loopback, controlled by a Rust test with one command per line:
// `token` prints a token, `rotate` signs with a new key and still publishes the old one,
// `withdraw` publishes the newest key only. Each command gets a line as its answer.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";

const secret = "a secret of the client's own, for tests";
console.info = console.error;  // its notices must not mix with the answers
let made = 0;
let keys = [];
let handler;
let fetches = 0;

const server = createServer((request, response) => {
  if (request.url === "/jwks") fetches += 1;
  handler(request, response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

function addKey() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = privateKey.export({ format: "jwk" });
  keys.unshift({ ...jwk, kid: `key-${(made += 1)}`, use: "sig", alg: "ES256" });
}

function start() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: "meter", client_secret: secret, grant_types: ["client_credentials"],
      redirect_uris: [], response_types: [], id_token_signed_response_alg: "ES256",
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:streams",
        getResourceServerInfo: () => ({
          scope: "usage.read", audience: "streams", accessTokenTTL: 600,
          accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  provider.on("server_error", (_, error) => console.error(error));
  handler = provider.callback();
}

async function token() {
  const credentials = [encodeURIComponent("meter"), encodeURIComponent(secret)].join(":");
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: {
      authorization: `Basic ${Buffer.from(credentials).toString("base64")}`,
      "content-type": "application/x-www-form-urlencoded",
    },
    body: new URLSearchParams({ grant_type: "client_credentials", scope: "usage.read" }),
  });
  const grant = await answer.json();
  if (!grant.access_token) throw new Error(JSON.stringify(grant));
  return grant.access_token;
}

addKey();
start();
console.log(issuer);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "token") console.log(await token());
  if (line === "rotate") { addKey(); start(); console.log("done"); }
  if (line === "withdraw") { keys = keys.slice(0, 1); start(); console.log("done"); }
  if (line === "fetches") console.log(fetches);
}
process.exit(0);
