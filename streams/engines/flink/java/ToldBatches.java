package fleetwheel.flink;

import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/** What other lanes' batches came to, each a batch of the one lane of the whole fleet; and the mark before each barrier. */
public class ToldBatches extends LaneBatches {
    public ToldBatches(int maxParallelism) {
        super(1, maxParallelism, 0, 0, 0);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        emit(0, element.getValue());
    }
}
