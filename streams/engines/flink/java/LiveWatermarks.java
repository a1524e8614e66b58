package fleetwheel.flink;

import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkGeneratorSupplier;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;

/**
 * The newest record's time, for each partition. A partition that brings nothing for `quietMs` follows the machine's
 * clock, and so does a subtask without partitions, so that deadlines pass on a silent fleet too; 0: never, as for
 * recorded topics.
 */
public class LiveWatermarks implements WatermarkStrategy<byte[]> {
    private final long quietMs;
    /** When any partition of this subtask brought something. */
    private transient long heardMs;
    private transient boolean started;

    public LiveWatermarks(long quietMs) {
        this.quietMs = quietMs;
    }

    @Override
    public WatermarkGenerator<byte[]> createWatermarkGenerator(WatermarkGeneratorSupplier.Context context) {
        // Flink makes one for the subtask, then one for each partition; records pass through those alone.
        boolean ofSubtask = !started;
        started = true;
        return new Generator(ofSubtask);
    }

    private final class Generator implements WatermarkGenerator<byte[]> {
        private final boolean ofSubtask;
        private long newest = Long.MIN_VALUE;
        private long heard = System.currentTimeMillis();

        Generator(boolean ofSubtask) {
            this.ofSubtask = ofSubtask;
            heardMs = heard;
        }

        @Override
        public void onEvent(byte[] frame, long timeMs, WatermarkOutput output) {
            heardMs = heard = System.currentTimeMillis();
            newest = Math.max(newest, Math.min(timeMs, heard));
        }

        @Override
        public void onPeriodicEmit(WatermarkOutput output) {
            long now = System.currentTimeMillis();
            if (quietMs > 0 && now - (ofSubtask ? heardMs : heard) >= quietMs) {
                newest = Math.max(newest, now - quietMs);
            }
            if (newest > Long.MIN_VALUE) {
                output.emitWatermark(new Watermark(newest));
            }
        }
    }
}
