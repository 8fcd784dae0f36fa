// A real provider of logins on a free port, for the tests: node provider.mjs REDIRECT_URI. Prints its issuer URL.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: "coder", client_secret: process.env.CLIENT_SECRET, redirect_uris: [process.argv[2]] }],
    claims: { email: ["email", "email_verified"], profile: ["name", "preferred_username"] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: "Ann B", preferred_username: id }),
    }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
