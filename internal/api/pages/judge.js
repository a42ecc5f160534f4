// Reads an OpenAPI document as JSON from standard input and says what is wrong with it, by a validator that is not ours.
import { text } from 'node:stream/consumers';
import { Validator } from '@seriousme/openapi-schema-validator';

const validator = new Validator();
const verdict = await validator.validate(JSON.parse(await text(process.stdin)));
if (!verdict.valid) {
  console.error(JSON.stringify(verdict.errors, null, 1));
  process.exit(1);
}
console.log(`OpenAPI ${validator.version}`);
