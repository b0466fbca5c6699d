import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.opensearch.Version;
import org.opensearch.analysis.common.CommonAnalysisPlugin;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.ingest.common.IngestCommonPlugin;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.painless.PainlessPlugin;
import org.opensearch.transport.Netty4Plugin;

/**
 * Starts one or more OpenSearch nodes in this process.
 *
 * <p>Options: --data DIR --http PORT --transport PORT --nodes N; node K listens on PORT + K - 1. They listen on
 * loopback; in a container --host 0.0.0.0 makes it every address. With --once it ends as soon as the nodes run (to
 * record which classes they use). Lines on standard input: "stop K" and "start K" take a node away and bring it back,
 * as when a machine is lost; each is answered by one line. Node 1 is the door: clients talk to it.
 */
public final class Launcher {
    private final Path data;
    private final String host;
    private final int http;
    private final int transport;
    private final int count;
    private final Map<Integer, Node> nodes = new TreeMap<>();
    private final Object making = new Object();

    private Launcher(Map<String, String> options) {
        data = Path.of(options.get("data")).toAbsolutePath();
        host = options.getOrDefault("host", "127.0.0.1");
        http = Integer.parseInt(options.get("http"));
        transport = Integer.parseInt(options.get("transport"));
        count = Integer.parseInt(options.getOrDefault("nodes", "1"));
    }

    public static void main(String[] args) throws Exception {
        List<String> words = Arrays.asList(args);
        if (words.contains("--version")) {
            System.out.println("OpenSearch " + Version.CURRENT);
            return;
        }
        Map<String, String> options = new TreeMap<>();
        for (int i = 0; i + 1 < args.length; i += 2) {
            options.put(args[i].replaceFirst("^--", ""), args[i + 1]);
        }
        Launcher launcher = new Launcher(options);
        launcher.startAll();
        if (words.contains("--once")) {
            launcher.closeAll();
            return;
        }
        Runtime.getRuntime().addShutdownHook(new Thread(launcher::closeAll));
        launcher.listen();
        Thread.currentThread().join();
    }

    /** All at once: a cluster of several elects its manager only when most of them are there. */
    private void startAll() throws Exception {
        List<Exception> failures = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int number = 1; number <= count; number++) {
            int id = number;
            Thread thread = new Thread(() -> {
                try {
                    start(id);
                } catch (Exception error) {
                    synchronized (failures) {
                        failures.add(error);
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (!failures.isEmpty()) {
            closeAll();
            throw failures.get(0);
        }
    }

    private void start(int number) throws Exception {
        Node node;
        // One after the other: while a node is made, Painless fills maps that all nodes of a process share and that
        // are not made for several threads; now and then one broke, and with it the cluster.
        synchronized (making) {
            node = new LogsNode(environment(number));
        }
        node.start();
        synchronized (nodes) {
            nodes.put(number, node);
        }
    }

    private Environment environment(int number) throws IOException {
        Path home = Files.createDirectories(data.resolve("node-" + number));
        Path configuration = Files.createDirectories(home.resolve("config"));
        List<String> names = IntStream.rangeClosed(1, count).mapToObj(n -> "node-" + n).collect(Collectors.toList());
        List<String> hosts =
                IntStream.range(0, count).mapToObj(n -> "127.0.0.1:" + (transport + n)).collect(Collectors.toList());
        Settings settings = Settings.builder()
                .put("path.home", home.toString())
                .put("cluster.name", "labkit")
                .put("node.name", "node-" + number)
                .put("network.host", host)
                .put("http.port", http + number - 1)
                .put("transport.port", transport + number - 1)
                .put("transport.type", "netty4")
                .put("http.type", "netty4")
                .putList("discovery.seed_hosts", hosts)
                .putList("cluster.initial_cluster_manager_nodes", names)
                .put("node.processors", 2)
                // A line for an index that is gone waits until the index is made again as it should be.
                .put("action.auto_create_index", false)
                .put("cluster.routing.allocation.disk.threshold_enabled", false)
                .build();
        return InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), configuration, () -> "node-" + number);
    }

    private void listen() throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.trim().split(" ");
            try {
                int number = Integer.parseInt(words[1]);
                if (number < 1 || number > count) {
                    throw new IllegalArgumentException("there are nodes 1 to " + count);
                }
                boolean runs = nodes.containsKey(number);
                if (words[0].equals("stop") && runs) {
                    stop(number);
                } else if (words[0].equals("start") && !runs) {
                    start(number);
                }
                System.out.println("done: " + line);
            } catch (Exception error) {
                System.out.println("failed: " + line + ": " + error);
            }
        }
    }

    private void stop(int number) throws IOException {
        Node node;
        synchronized (nodes) {
            node = nodes.remove(number);
        }
        node.close();
    }

    private void closeAll() {
        synchronized (nodes) {
            for (Node node : nodes.values()) {
                try {
                    node.close();
                } catch (IOException error) {
                    System.err.println("closing a node: " + error);
                }
            }
            nodes.clear();
        }
    }

    /** A node with the plugins that labkit's logs need. */
    private static final class LogsNode extends Node {
        LogsNode(Environment environment) {
            super(
                    environment,
                    List.of(
                            Netty4Plugin.class,
                            IngestCommonPlugin.class,
                            CommonAnalysisPlugin.class,
                            PainlessPlugin.class),
                    false);
        }
    }
}
