// The work of tests/support/client_work.py by grpc-java over Netty.
import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.common.io.ByteStreams;
import com.google.common.util.concurrent.ListenableFuture;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.ClientInterceptors;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

public final class Client {
  private static final int KINDS = 16;
  private static final String SERVICE = "inference.GRPCInferenceService";
  private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static Path folder;
  private static ManagedChannel channel;

  /** Leaves bytes as they are. */
  private static final class AsIs implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return ByteStreams.toByteArray(stream);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  private static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
    String full = MethodDescriptor.generateFullMethodName(SERVICE, name);
    return MethodDescriptor.newBuilder(new AsIs(), new AsIs()).setFullMethodName(full).setType(type).build();
  }

  private static byte[] read(String name) {
    try {
      return Files.readAllBytes(folder.resolve(name));
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static String kind(int number) {
    return Integer.toString(number % KINDS);
  }

  private static Metadata authorized() {
    Metadata metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + new String(read("token"), UTF_8));
    return metadata;
  }

  private static ClientCall<byte[], byte[]> call(MethodDescriptor<byte[], byte[]> method, CallOptions options, Metadata metadata) {
    return ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(metadata)).newCall(method, options);
  }

  private static ListenableFuture<byte[]> begin(String name, CallOptions options, Metadata metadata) {
    return ClientCalls.futureUnaryCall(call(method("ModelInfer", MethodType.UNARY), options, metadata), read(name + ".ask"));
  }

  private static void same(String name, String kind, byte[] answer) {
    if (!Arrays.equals(answer, read(name + "." + kind))) {
      throw new IllegalStateException("this is not the answer to " + name);
    }
  }

  private static void ask(String name, CallOptions options, Metadata metadata) throws Exception {
    same(name, "answer", begin(name, options, metadata).get());
  }

  private static Status endedWith(ListenableFuture<byte[]> asked) throws InterruptedException {
    try {
      asked.get();
    } catch (java.util.concurrent.CancellationException error) {
      return Status.CANCELLED;
    } catch (java.util.concurrent.ExecutionException error) {
      return Status.fromThrowable(error);
    }
    throw new IllegalStateException("a call was answered that must fail");
  }

  private static void stream(int messages) throws Exception {
    List<byte[]> answers = new ArrayList<>();
    CompletableFuture<Void> ended = new CompletableFuture<>();
    StreamObserver<byte[]> reading = new StreamObserver<>() {
      @Override
      public void onNext(byte[] answer) {
        answers.add(answer);
      }

      @Override
      public void onError(Throwable error) {
        ended.completeExceptionally(error);
      }

      @Override
      public void onCompleted() {
        ended.complete(null);
      }
    };
    MethodDescriptor<byte[], byte[]> method = method("ModelStreamInfer", MethodType.BIDI_STREAMING);
    StreamObserver<byte[]> asking = ClientCalls.asyncBidiStreamingCall(call(method, CallOptions.DEFAULT, authorized()), reading);
    for (int number = 0; number < messages; number++) {
      asking.onNext(read(kind(number) + ".ask"));
    }
    asking.onCompleted();
    ended.get();
    if (answers.size() != messages) {
      throw new IllegalStateException(messages + " messages had " + answers.size() + " answers");
    }
    for (int number = 0; number < messages; number++) {
      same(kind(number), "told", answers.get(number));
    }
  }

  public static void main(String[] arguments) throws Exception {
    folder = Path.of(arguments[1]);
    channel = NettyChannelBuilder.forTarget(arguments[0]).usePlaintext().maxInboundMessageSize(Integer.MAX_VALUE).build();
    CallOptions plain = CallOptions.DEFAULT;

    List<ListenableFuture<byte[]>> asked = new ArrayList<>();
    for (int number = 0; number < Integer.parseInt(arguments[2]); number++) {
      asked.add(begin(kind(number), plain, authorized()));
    }
    for (int number = 0; number < asked.size(); number++) {
      same(kind(number), "answer", asked.get(number).get());
    }
    System.out.println("unary 0");

    stream(Integer.parseInt(arguments[3]));
    System.out.println("stream 0");

    CallOptions hasty = plain.withDeadlineAfter(1000, TimeUnit.MILLISECONDS);
    System.out.println("deadline " + endedWith(begin("slow", hasty, authorized())).getCode().value());

    ListenableFuture<byte[]> slow = begin("slow", plain, authorized());
    ask("0", plain, authorized());
    slow.cancel(true);
    System.out.println("cancel " + endedWith(slow).getCode().value());

    Status unknown = endedWith(begin("unknown", plain, authorized()));
    System.out.println("unknown " + unknown.getCode().value() + " " + unknown.getDescription());
    ask("large", plain, authorized());
    System.out.println("large 0");
    for (int number = 0; number < KINDS; number++) {
      ask(kind(number), plain.withCompression("gzip"), authorized());
    }
    System.out.println("gzip 0");
    byte[] every = new byte[256];
    for (int number = 0; number < every.length; number++) {
      every[number] = (byte) number;
    }
    Metadata more = authorized();
    more.put(Metadata.Key.of("x-plain", Metadata.ASCII_STRING_MARSHALLER), "plain");
    more.put(Metadata.Key.of("x-every-byte-bin", Metadata.BINARY_BYTE_MARSHALLER), every);
    ask("0", plain, more);
    System.out.println("metadata 0");
    Status refused = endedWith(begin("0", plain, new Metadata()));
    System.out.println("refused " + refused.getCode().value() + " " + refused.getDescription());
    channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
  }
}
