import java.io.File;
import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.util.ArrayList;

/** 20,000 VMAs from one line: each second page of a file is mapped by itself. */
class EverySecond {
    static final ArrayList<MappedByteBuffer> KEPT = new ArrayList<>();

    static void openSegment(FileChannel file, long at) throws Exception {
        KEPT.add(file.map(FileChannel.MapMode.READ_ONLY, at * 8192, 4096)); // this line
    }

    public static void main(String[] args) throws Exception {
        File file = File.createTempFile("segments", ".bin");
        file.deleteOnExit();
        try (RandomAccessFile data = new RandomAccessFile(file, "rw")) {
            data.setLength(20_000L * 8192);
            for (long at = 0; at < 20_000; at++)
                openSegment(data.getChannel(), at);
        }
        if (args.length > 0)
            System.in.read();
    }
}
