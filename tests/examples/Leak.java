import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.util.ArrayList;

class Leak {
    public static void main(String[] args) throws Exception {
        var kept = new ArrayList<MappedByteBuffer>();
        try (var file = new RandomAccessFile("data.bin", "rw")) {
            file.setLength(1L << 30);
            for (long at = 0; ; at += 4096)
                kept.add(file.getChannel().map(FileChannel.MapMode.READ_ONLY, at % (1 << 30), 4096));
        }
    }
}
