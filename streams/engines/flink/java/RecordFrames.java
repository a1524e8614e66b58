package fleetwheel.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

/**
 * A Kafka record as one frame: its lane (4 bytes), then MessagePack [topic, partition, offset, time_ms, key, headers,
 * value] as streams/engines/flink/frames.py reads it. Nothing of the record is lost, so a dead letter holds it whole.
 */
public class RecordFrames implements KafkaRecordDeserializationSchema<byte[]> {
    private static final byte[] NOTHING = new byte[0];
    private final String prefix;
    private final boolean byPartition;
    private transient MessageBufferPacker packer;

    /** prefix: before every topic, not part of its name. byPartition: a lane for each partition, else lane 0. */
    public RecordFrames(String prefix, boolean byPartition) {
        this.prefix = prefix;
        this.byPartition = byPartition;
    }

    @Override
    public void open(DeserializationSchema.InitializationContext context) {
        packer = MessagePack.newDefaultBufferPacker();
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<byte[]> out) throws IOException {
        packer.clear();
        packer.packArrayHeader(7);
        packer.packString(record.topic().substring(prefix.length()));
        packer.packInt(record.partition());
        packer.packLong(record.offset());
        // A sender whose clock is ahead must not pull the job's time with it.
        packer.packLong(Math.min(record.timestamp(), System.currentTimeMillis()));
        pack(record.key());
        int headers = 0;
        for (Header ignored : record.headers()) {
            headers++;
        }
        packer.packArrayHeader(headers);
        for (Header header : record.headers()) {
            packer.packArrayHeader(2);
            packer.packString(header.key());
            pack(header.value());
        }
        pack(record.value());
        byte[] body = packer.toByteArray();
        int lane = byPartition ? record.partition() : 0;
        out.collect(ByteBuffer.allocate(4 + body.length).putInt(lane).put(body).array());
    }

    private void pack(byte[] data) throws IOException {
        byte[] bytes = data == null ? NOTHING : data;
        packer.packBinaryHeader(bytes.length);
        packer.writePayload(bytes);
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }
}
