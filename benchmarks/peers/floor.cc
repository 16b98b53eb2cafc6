// The least that gRPC itself costs here: its C++ callback server, which answers every method with bytes from a file.
//
//   floor ADDRESS FOLDER MODEL      FOLDER/METHOD holds the answer of each method
//
// Nothing is computed, and of a request its id alone is read and sent back: without it perf_analyzer never ends. ModelStatistics
// counts, for perf_analyzer and for whoever divides.
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <list>
#include <string>

using grpc::ByteBuffer;
using grpc::CallbackServerContext;

namespace {

std::atomic<uint64_t> answered{0};

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value > 127; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes += static_cast<char>(value);
}

// A field of protobuf's wire format: text or a message, and a number.
std::string field(int number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string field(int number, uint64_t value) { return varint(number << 3) + varint(value); }

// The id (field 3) of a ModelInferRequest; before it come only texts, the names of model and version.
std::string id_of(const ByteBuffer& request) {
  grpc::Slice slice;
  if (!request.DumpToSingleSlice(&slice).ok()) return {};
  const uint8_t *at = slice.begin(), *const end = slice.end();
  const auto next = [&at, end] {
    uint64_t value = 0;
    for (int shift = 0; at < end && shift < 64; shift += 7) {
      value |= static_cast<uint64_t>(*at & 127) << shift;
      if (!(*at++ & 128)) break;
    }
    return value;
  };
  while (at < end) {
    const uint64_t tag = next(), size = next();
    if ((tag & 7) != 2 || tag >> 3 > 3 || size > static_cast<uint64_t>(end - at)) break;
    if (tag >> 3 == 3) return {reinterpret_cast<const char*>(at), size};
    at += size;
  }
  return {};
}

// ModelStatisticsResponse.model_stats{name, version, last_inference, inference_count, execution_count, inference_stats}, where
// each stage counts every request and takes no time.
std::string statistics(const std::string& model) {
  const uint64_t count = answered;
  const std::string stage = field(1, count) + field(2, 0);
  std::string stages;
  for (const int number : {1, 3, 4, 5, 6}) stages += field(number, stage);
  return field(1, field(1, model) + field(2, "1") + field(3, 1) + field(4, count) + field(5, count) + field(6, stages));
}

class Floor : public grpc::Service {
 public:
  Floor(const std::filesystem::path& folder, const std::string& model) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      std::ifstream file(entry.path(), std::ios::binary);
      const grpc::Slice answer(std::string{std::istreambuf_iterator<char>(file), {}});
      if (name == "ModelInfer") {
        add(name, [answer](const ByteBuffer& request, ByteBuffer* out) {
          const grpc::Slice parts[] = {answer, grpc::Slice(field(3, id_of(request)))};
          *out = ByteBuffer(parts, 2);
          answered.fetch_add(1, std::memory_order_relaxed);
        });
      } else {
        add(name, [answer](const ByteBuffer&, ByteBuffer* out) { *out = ByteBuffer(&answer, 1); });
      }
    }
    add("ModelStatistics", [model](const ByteBuffer&, ByteBuffer* out) {
      const grpc::Slice answer(statistics(model));
      *out = ByteBuffer(&answer, 1);
    });
  }

 private:
  template <typename Answer>
  void add(const std::string& name, Answer answer) {
    names_.push_back("/inference.GRPCInferenceService/" + name);
    AddMethod(new grpc::internal::RpcServiceMethod(names_.back().c_str(), grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRawCallback(methods_++, new grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>(
        [answer](CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* out) {
          answer(*request, out);
          auto* reactor = context->DefaultReactor();
          reactor->Finish(grpc::Status::OK);
          return reactor;
        }));
  }

  std::list<std::string> names_;
  int methods_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "usage: floor ADDRESS FOLDER MODEL\n";
    return 2;
  }
  Floor floor(arguments[2], arguments[3]);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(arguments[1], grpc::InsecureServerCredentials());
  builder.RegisterService(&floor);
  const auto server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
}
