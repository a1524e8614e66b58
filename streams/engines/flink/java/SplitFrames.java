package fleetwheel.flink;

import java.util.Arrays;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.util.Collector;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/** What a batch came to, MessagePack [false, [[topic, key, headers, value, time_ms], ...], token], as one frame for each record. */
public class SplitFrames implements FlatMapFunction<byte[], byte[]> {
    @Override
    public void flatMap(byte[] batch, Collector<byte[]> out) throws Exception {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(batch)) {
            unpacker.unpackArrayHeader();
            unpacker.unpackBoolean();
            int records = unpacker.unpackArrayHeader();
            for (int i = 0; i < records; i++) {
                int start = (int) unpacker.getTotalReadBytes();
                unpacker.skipValue();
                out.collect(Arrays.copyOfRange(batch, start, (int) unpacker.getTotalReadBytes()));
            }
        }
    }
}
