// The least that gRPC itself costs here: its C++ callback server, which answers every method with bytes from a file.
//
//   floor ADDRESS FOLDER MODEL      FOLDER/METHOD holds the answer of each method
//
// Nothing is parsed and nothing computed. ModelStatistics alone counts: perf_analyzer reads it, and so does whoever divides.
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

// ModelStatisticsResponse.model_stats{name, version, inference_count, execution_count, inference_stats.success.count}
std::string statistics(const std::string& model) {
  const uint64_t count = answered;
  return field(1, field(1, model) + field(2, "1") + field(4, count) + field(5, count) +
                      field(6, field(1, field(1, count) + field(2, count))));
}

ByteBuffer buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return ByteBuffer(&slice, 1);
}

class Floor : public grpc::Service {
 public:
  Floor(const std::filesystem::path& folder, const std::string& model) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      std::ifstream file(entry.path(), std::ios::binary);
      const ByteBuffer answer = buffer({std::istreambuf_iterator<char>(file), {}});
      const bool counts = name == "ModelInfer";
      add(name, [answer, counts](ByteBuffer* out) {
        *out = answer;
        if (counts) answered.fetch_add(1, std::memory_order_relaxed);
      });
    }
    add("ModelStatistics", [model](ByteBuffer* out) { *out = buffer(statistics(model)); });
  }

 private:
  template <typename Answer>
  void add(const std::string& name, Answer answer) {
    names_.push_back("/inference.GRPCInferenceService/" + name);
    AddMethod(new grpc::internal::RpcServiceMethod(names_.back().c_str(), grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRawCallback(methods_++, new grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>(
        [answer](CallbackServerContext* context, const ByteBuffer*, ByteBuffer* out) {
          answer(out);
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
