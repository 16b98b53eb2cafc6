// The work of tests/support/client_work.py by @grpc/grpc-js; NODE_PATH says where that is.
'use strict';
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');

const INFER = '/inference.GRPCInferenceService/ModelInfer';
const STREAM_INFER = '/inference.GRPCInferenceService/ModelStreamInfer';
const KINDS = 16;
const LARGEST = 64 * 1024 * 1024;
const [address, folder, calls, messages] = process.argv.slice(2);
const read = (name) => fs.readFileSync(path.join(folder, name));
const token = read('token').toString();
const bytes = (buffer) => buffer;

function authorized() {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function connect(options) {
  const sizes = { 'grpc.max_receive_message_length': LARGEST, 'grpc.max_send_message_length': LARGEST };
  return new grpc.Client(address, grpc.credentials.createInsecure(), { ...sizes, ...options });
}

function begin(client, name, metadata = authorized(), options = {}) {
  let call;
  const answer = new Promise((resolve, reject) => {
    const done = (error, value) => (error ? reject(error) : resolve(value));
    call = client.makeUnaryRequest(INFER, bytes, bytes, read(`${name}.ask`), metadata, options, done);
  });
  return { call, answer };
}

function same(name, answer, kind = 'answer') {
  if (Buffer.compare(answer, read(`${name}.${kind}`)) !== 0) throw new Error(`this is not the answer to ${name}`);
}

async function ask(client, name, metadata) {
  same(name, await begin(client, name, metadata).answer);
}

async function endedWith(started) {
  try {
    await started.answer;
  } catch (error) {
    return error;
  }
  throw new Error('a call was answered that must fail');
}

function stream(client) {
  return new Promise((resolve, reject) => {
    const answers = [];
    const call = client.makeBidiStreamRequest(STREAM_INFER, bytes, bytes, authorized(), {});
    call.on('data', (answer) => answers.push(answer));
    call.on('error', reject);
    call.on('end', () => resolve(answers));
    for (let number = 0; number < messages; number++) call.write(read(`${number % KINDS}.ask`));
    call.end();
  });
}

async function main() {
  const client = connect({});
  await Promise.all(Array.from({ length: Number(calls) }, (_, number) => ask(client, number % KINDS)));
  console.log('unary 0');

  const answers = await stream(client);
  if (answers.length !== Number(messages)) throw new Error(`${messages} messages had ${answers.length} answers`);
  answers.forEach((answer, number) => same(number % KINDS, answer, 'told'));
  console.log('stream 0');

  const late = begin(client, 'slow', authorized(), { deadline: Date.now() + 1000 });
  console.log(`deadline ${(await endedWith(late)).code}`);

  const slow = begin(client, 'slow');
  const ended = endedWith(slow);
  await ask(client, 0);
  slow.call.cancel();
  console.log(`cancel ${(await ended).code}`);

  const unknown = await endedWith(begin(client, 'unknown'));
  console.log(`unknown ${unknown.code} ${unknown.details}`);
  await ask(client, 'large');
  console.log('large 0');

  const packing = connect({ 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });
  for (let number = 0; number < KINDS; number++) await ask(packing, number);
  packing.close();
  console.log('gzip 0');

  const more = authorized();
  more.set('x-plain', 'plain');
  more.set('x-every-byte-bin', Buffer.from(Array.from({ length: 256 }, (_, number) => number)));
  await ask(client, 0, more);
  console.log('metadata 0');

  const refused = await endedWith(begin(client, 0, new grpc.Metadata()));
  console.log(`refused ${refused.code} ${refused.details}`);
  client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
