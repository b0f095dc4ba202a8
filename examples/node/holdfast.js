// Holdfast from Node.js, made from the .proto files alone.
//
//   node holdfast.js ADDRESS TOPIC GROUP COUNT
//
// Publishes COUNT records, consumes them in a group with acknowledgements,
// replays them, and prints one JSON line with what it saw.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const protos = path.join(__dirname, '..', '..', 'proto');
const definition = protoLoader.loadSync(
  ['bus', 'topics', 'cluster'].map((name) => `holdfast/v1/${name}.proto`),
  { includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true },
);
const { EventBus, Topics, Cluster } = grpc.loadPackageDefinition(definition).holdfast.v1;

const deadline = () => ({ deadline: Date.now() + 20000 });

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function publish(bus, topic, count) {
  const acks = [];
  for (let i = 0; i < count; i += 1) {
    const record = {
      key: Buffer.from(`key-${i % 5}`),
      value: Buffer.from(`node-${i}`),
      headers: [{ name: 'origin', value: Buffer.from('node') }],
    };
    const answer = await call(bus, 'Publish', { topic, records: [record] });
    acks.push(answer.positions[0]);
  }
  return acks;
}

// Takes COUNT records, acknowledges each, and waits until the broker says the
// acknowledgements are durable.
function consume(bus, topic, group, count) {
  return new Promise((resolve, reject) => {
    const stream = bus.Subscribe(deadline());
    const values = [];
    const committed = new Map();
    let finished = false;
    stream.on('error', (error) => (finished ? undefined : reject(error)));
    stream.on('data', (message) => {
      if (message.kind === 'delivery') {
        for (const record of message.delivery.records) {
          values.push(record.value.toString());
          const range = {
            topic,
            partition: record.partition,
            first_offset: record.offset,
            last_offset: record.offset,
          };
          stream.write({ ack: { ranges: [range] } });
          stream.write({ credit: { records: 1 } });
        }
      } else if (message.kind === 'committed') {
        for (const { partition, offset } of message.committed.offsets) committed.set(partition, offset);
        const total = [...committed.values()].reduce((sum, offset) => sum + offset, 0);
        if (total >= count) {
          finished = true;
          stream.end();
          stream.cancel();
          resolve({ values, committed: total });
        }
      } else if (message.kind === 'ack_refused') {
        reject(new Error(message.ack_refused.error.message));
      }
    });
    stream.write({ start: { group, topics: [topic], credits: 3 } });
  });
}

function replay(bus, topic) {
  return new Promise((resolve, reject) => {
    const records = [];
    const stream = bus.Replay({ topic, start: { earliest: true } }, deadline());
    stream.on('error', reject);
    stream.on('data', (message) => records.push(...message.records));
    stream.on('end', () => resolve(records));
  });
}

async function main([address, topic, group, count]) {
  const connect = (Service) => new Service(address, grpc.credentials.createInsecure());
  const [bus, topics, cluster] = [EventBus, Topics, Cluster].map(connect);
  await call(topics, 'CreateTopic', { name: topic, partitions: 3, if_not_exists: true });
  const acks = await publish(bus, topic, Number(count));
  const consumed = await consume(bus, topic, group, Number(count));
  const replayed = await replay(bus, topic);
  const status = await call(cluster, 'GetStatus', {});
  let refusal;
  try {
    await call(bus, 'Publish', { topic: 'no-such-topic', records: [{ value: Buffer.from('x') }] });
  } catch (error) {
    refusal = grpc.status[error.code];
  }
  console.log(JSON.stringify({
    acks: acks.length,
    consumed: consumed.values.sort(),
    committed: consumed.committed,
    replayed: replayed.map((record) => record.value.toString()).sort(),
    headers: replayed.every((record) => record.headers[0].value.toString() === 'node'),
    refusal,
    node: status.node_id,
  }));
  [bus, topics, cluster].forEach((client) => client.close());
}

main(process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
