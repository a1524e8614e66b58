package fleetwheel.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.types.Row;

/**
 * Gathers record frames to batches, one lane each: MessagePack [mark, records], so that Python is called once for
 * many records. Keeps no state: what is gathered leaves before a watermark, a checkpoint's barrier and the end pass.
 *
 * <p>Before each barrier every lane gets an empty batch with the mark set: the reader saves its state then. It comes
 * last in every channel, so nothing can change the state between the save and the barrier.
 */
public class LaneBatches extends AbstractStreamOperator<Row>
        implements OneInputStreamOperator<byte[], Row>, BoundedOneInput {
    private static final int MESSAGEPACK_ARRAY2 = 0x92, FALSE = 0xc2, TRUE = 0xc3, ARRAY32 = 0xdd;
    private final int lanes;
    private final int maxParallelism;
    private final int maxRecords;
    private final int maxBytes;
    private final long waitMs;
    private transient Lane[] gathered;
    private transient int[] keys;
    private transient boolean timerSet;
    /** Passes when what came before it has left: how often time is told must not cut batches. */
    private transient Watermark held;

    /** A lane's frames. */
    private static final class Lane {
        final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1 << 16);
        int records;
    }

    public LaneBatches(int lanes, int maxParallelism, int maxRecords, int maxBytes, long waitMs) {
        this.lanes = lanes;
        this.maxParallelism = maxParallelism;
        this.maxRecords = maxRecords;
        this.maxBytes = maxBytes;
        this.waitMs = waitMs;
    }

    @Override
    public void open() throws Exception {
        super.open();
        gathered = new Lane[lanes];
        keys = new int[lanes];
        for (int lane = 0; lane < lanes; lane++) {
            gathered[lane] = new Lane();
            keys[lane] = keyOf(lane);
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] frame = element.getValue();
        int number = ByteBuffer.wrap(frame).getInt();
        if (number >= lanes) {
            throw new IllegalStateException("partition " + number + " appeared, the job was started for " + lanes
                    + ": stop it with a checkpoint and start it again");
        }
        Lane lane = gathered[number];
        lane.bytes.write(frame, 4, frame.length - 4);
        lane.records++;
        if (lane.records >= maxRecords || lane.bytes.size() >= maxBytes) {
            flush(number);
        } else if (!timerSet) {
            timerSet = true;
            long at = getProcessingTimeService().getCurrentProcessingTime() + waitMs;
            getProcessingTimeService().registerTimer(at, time -> {
                timerSet = false;
                flushAll();
            });
        }
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (timerSet) {
            held = mark;
        } else {
            super.processWatermark(mark);
        }
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        flushAll();
        for (int lane = 0; lane < lanes; lane++) {
            emit(lane, new byte[] {(byte) MESSAGEPACK_ARRAY2, (byte) TRUE, (byte) 0x90});
        }
    }

    @Override
    public void endInput() throws Exception {
        flushAll();
    }

    private void flushAll() throws Exception {
        for (int lane = 0; lane < lanes; lane++) {
            flush(lane);
        }
        if (held != null) {
            super.processWatermark(held);
            held = null;
        }
    }

    private void flush(int number) {
        Lane lane = gathered[number];
        if (lane.records == 0) {
            return;
        }
        byte[] frames = lane.bytes.toByteArray();
        ByteBuffer batch = ByteBuffer.allocate(7 + frames.length);
        batch.put((byte) MESSAGEPACK_ARRAY2).put((byte) FALSE).put((byte) ARRAY32).putInt(lane.records).put(frames);
        lane.bytes.reset();
        lane.records = 0;
        emit(number, batch.array());
    }

    protected void emit(int lane, byte[] batch) {
        output.collect(new StreamRecord<>(Row.of(keys[lane], batch)));
    }

    /**
     * A key of the lane's own, whose group spreads the lanes evenly over any number of subtasks: hashes would put most
     * on one. It depends on the lane alone, so that states are found again when there are more lanes.
     */
    private int keyOf(int lane) {
        int wanted = groupOf(lane);
        int before = 0;
        for (int other = 0; other < lane; other++) {
            before += groupOf(other) == wanted ? 1 : 0;
        }
        for (int key = 0; ; key++) {
            if (KeyGroupRangeAssignment.assignToKeyGroup(Row.of(key), maxParallelism) == wanted && before-- == 0) {
                return key;
            }
        }
    }

    /** 0, 1/2, 1/4, 3/4, 1/8, ... of the groups (van der Corput). */
    private int groupOf(int lane) {
        return (int) ((Integer.toUnsignedLong(Integer.reverse(lane)) * maxParallelism) >>> 32);
    }
}
