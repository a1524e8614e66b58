package fleetwheel.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/** A frame [topic, key, headers, value, time_ms] as a record, in the partition in which every other engine would put it. */
public class WriteFrames implements KafkaRecordSerializationSchema<byte[]> {
    private final String prefix;

    public WriteFrames(String prefix) {
        this.prefix = prefix;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(byte[] frame, KafkaSinkContext context, Long timestamp) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(frame)) {
            unpacker.unpackArrayHeader();
            String topic = prefix + string(unpacker);
            byte[] key = bytes(unpacker);
            // CRC-32 of the key: librdkafka's "consistent" partitioner and streams/transport/memory.py.
            CRC32 crc = new CRC32();
            crc.update(key);
            int partition = (int) (crc.getValue() % context.getPartitionsForTopic(topic).length);
            int headers = unpacker.unpackArrayHeader();
            String[] names = new String[headers];
            byte[][] values = new byte[headers][];
            for (int i = 0; i < headers; i++) {
                unpacker.unpackArrayHeader();
                names[i] = string(unpacker);
                values[i] = bytes(unpacker);
            }
            byte[] value = bytes(unpacker);
            ProducerRecord<byte[], byte[]> record =
                    new ProducerRecord<>(topic, partition, unpacker.unpackLong(), key, value);
            for (int i = 0; i < headers; i++) {
                record.headers().add(names[i], values[i]);
            }
            return record;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** As unpackString, which makes a buffer of 16 KB for each record. */
    private static String string(MessageUnpacker unpacker) throws IOException {
        return new String(unpacker.readPayload(unpacker.unpackRawStringHeader()), StandardCharsets.UTF_8);
    }

    private static byte[] bytes(MessageUnpacker unpacker) throws IOException {
        return unpacker.readPayload(unpacker.unpackBinaryHeader());
    }
}
