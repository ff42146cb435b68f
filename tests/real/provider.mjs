// The certified OpenID provider, on a loopback port. The first line of stdin is its settings; it
// prints {"issuer"} when it listens, then answers each further line, a command, with one line.
// It ends when stdin does.
//
//   settings: {"key", "certificate"}   PEM, for TLS
//             {"clients"}              as of RFC 7591
//             {"groups"}               whose member everybody is
//             {"resource"}             what access tokens that are JWTs may be for (RFC 8707)
//             {"steady"}               clients whose refresh tokens do not rotate
//   {"do": "lifetime", "account", "seconds"}   how long this account's tokens live from now on
//   {"do": "forget", "account"}                its grants are revoked, as an administrator would
//   {"do": "report"}                           what was asked for, and every secret that was issued

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import Provider, { errors } from 'oidc-provider';

console.info = console.warn; // stdout is for answers
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
const seconds = new Map(); // by account
const grants = [];
const requests = [];
const owners = new Map(); // whose each code and token is

const lifetime = (account) => seconds.get(account) ?? 3600;
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const configuration = {
  clients: settings.clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID() }] },
  cookies: { keys: [randomUUID()] },
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] },
  conformIdTokenClaims: false, // claims of scopes in the ID token, as most providers have it
  findAccount: (_, account) => ({
    accountId: account,
    claims: () => ({ sub: account, name: account, email: `${account}@example.com`, email_verified: true, groups: settings.groups }),
  }),
  rotateRefreshToken: ({ oidc }) => !settings.steady.includes(oidc.client.clientId),
  extraTokenClaims: (_, token) => ({ groups: token.accountId ? settings.groups : undefined }),
  ttl: {
    IdToken: ({ oidc }) => lifetime(oidc.entities.Account?.accountId),
    AccessToken: (_, token) => lifetime(token.accountId),
    ClientCredentials: 3600,
    RefreshToken: 86_400,
    Grant: 86_400,
    Session: 86_400,
    Interaction: 3600,
    DeviceCode: 600,
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== settings.resource) throw new errors.InvalidTarget();
        return { scope: 'read', audience: resource, accessTokenFormat: 'jwt' };
      },
    },
  },
};

const server = createServer({ key: settings.key, cert: settings.certificate });
await new Promise((resolve) => server.listen(0, 'localhost', resolve));
const issuer = `https://localhost:${server.address().port}`;
const provider = new Provider(issuer, configuration);
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.saved', (grant) => grants.push(grant));
provider.on('authorization.success', ({ oidc }, answer) => answer?.code && owners.set(answer.code, oidc.account.accountId));
provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc) note(ctx);
});
server.on('request', provider.callback());

function note({ oidc, body, status }) {
  const { route, params = {}, client, account } = oidc;
  const known = owners.get(params.refresh_token ?? params.code ?? oidc.body?.token);
  const who = account?.accountId ?? known ?? null;
  if (route === 'token' && status === 200) {
    for (const name of ['id_token', 'access_token', 'refresh_token']) if (body[name]) owners.set(body[name], who);
  }
  if (route === 'device_authorization' && status === 200) owners.set(body.device_code, null);
  if (['authorization', 'token', 'revocation', 'device_authorization'].includes(route)) {
    requests.push({ route, client: client?.clientId, account: who, grant: params.grant_type, status, error: body?.error });
  }
}

const commands = {
  lifetime: ({ account, seconds: span }) => { seconds.set(account, span); },
  forget: async ({ account }) => {
    for (const grant of grants.filter((grant) => grant.accountId === account)) await grant.destroy();
  },
  report: () => ({ requests, secrets: [...owners.keys()] }),
};

console.log(JSON.stringify({ issuer }));
for await (const line of lines) {
  const command = JSON.parse(line);
  console.log(JSON.stringify(await commands[command.do](command) ?? {}));
}
process.exit();
