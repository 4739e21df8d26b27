package example;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Prints each log of a topic once: java example.Subscriber BOOTSTRAP TOPIC GROUP [COUNT]. */
public final class Subscriber {
    private static final int IDS_MAX = 100_000;

    private Subscriber() {}

    public static void main(String[] arguments) {
        long count = arguments.length > 3 ? Long.parseLong(arguments[3]) : Long.MAX_VALUE;
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("group.id", arguments[2]);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        Set<String> seen = Collections.newSetFromMap(new LinkedHashMap<>() {
            @Override
            protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
                return size() > IDS_MAX;
            }
        });
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(arguments[1]));
            while (seen.size() < count) {
                for (ConsumerRecord<String, String> log : consumer.poll(Duration.ofSeconds(1))) {
                    String id = new String(log.headers().lastHeader("id").value(), StandardCharsets.US_ASCII);
                    if (seen.add(id)) {
                        System.out.println(id + " " + log.key() + " " + log.value());
                    }
                }
                consumer.commitSync(); // once they were handled: what is not committed comes again
            }
        }
    }
}
