// The work of tests/support/client_work.py by gRPC's C++ library.
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

namespace {

const char* const kInfer = "/inference.GRPCInferenceService/ModelInfer";
const char* const kStreamInfer = "/inference.GRPCInferenceService/ModelStreamInfer";
const int kKinds = 16;
std::string folder;

void Fail(const std::string& why) {
  std::cerr << why << std::endl;
  std::_Exit(1);
}

std::string Read(const std::string& name) {
  std::ifstream file(folder + "/" + name, std::ios::binary);
  if (!file) Fail(name + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Kind(int number) { return std::to_string(number % kKinds); }

grpc::ByteBuffer Packed(const std::string& name) {
  grpc::Slice slice(Read(name + ".ask"));
  return grpc::ByteBuffer(&slice, 1);
}

void Same(const std::string& name, const grpc::ByteBuffer& answer, const std::string& kind = "answer") {
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) Fail("an answer cannot be read");
  std::string bytes;
  for (const auto& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  if (bytes != Read(name + "." + kind)) Fail("this is not the answer to " + name);
}

// A call that has begun; `Wait` gives the status it ends with, and compares what was answered.
class Call {
 public:
  Call(grpc::GenericStub* stub, const std::string& name) : Call(stub, name, [](grpc::ClientContext*) {}) {}

  template <typename Prepare>
  Call(grpc::GenericStub* stub, const std::string& name, Prepare prepare, bool authorized = true)
      : name_(name), asked_(Packed(name)) {
    if (authorized) context.AddMetadata("authorization", "Bearer " + Read("token"));
    prepare(&context);
    stub->UnaryCall(&context, kInfer, {}, &asked_, &answer_, [this](grpc::Status status) { ended_.set_value(status); });
  }

  grpc::Status Wait() {
    grpc::Status status = ended_.get_future().get();
    if (status.ok()) Same(name_, answer_);
    return status;
  }

  void MustSucceed() {
    grpc::Status status = Wait();
    if (!status.ok()) Fail(name_ + ": " + status.error_message());
  }

  grpc::ClientContext context;

 private:
  std::string name_;
  grpc::ByteBuffer asked_, answer_;
  std::promise<grpc::Status> ended_;
};

// Each message is written when the one before has gone, each answer read when the one before has been compared.
void Stream(grpc::GenericStub* stub, int messages) {
  class Steps : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    explicit Steps(int messages) : messages_(messages) {}
    void Begin() {
      Write();
      StartRead(&answer_);
      StartCall();
    }
    void OnWriteDone(bool ok) override {
      if (ok) Write();
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      Same(Kind(read_++), answer_, "told");
      StartRead(&answer_);
    }
    void OnDone(const grpc::Status& status) override { ended_.set_value(status); }
    void Wait() {
      grpc::Status status = ended_.get_future().get();
      if (!status.ok() || read_ != messages_) Fail("the stream has ended after " + std::to_string(read_) + " answers");
    }

   private:
    void Write() {
      if (written_ == messages_) {
        StartWritesDone();
        return;
      }
      asked_ = Packed(Kind(written_++));
      StartWrite(&asked_);
    }
    const int messages_;
    int written_ = 0, read_ = 0;
    grpc::ByteBuffer asked_, answer_;
    std::promise<grpc::Status> ended_;
  };
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + Read("token"));
  Steps steps(messages);
  stub->PrepareBidiStreamingCall(&context, kStreamInfer, {}, &steps);
  steps.Begin();
  steps.Wait();
}

}  // namespace

int main(int, char** arguments) {
  folder = arguments[2];
  const int calls = std::atoi(arguments[3]), messages = std::atoi(arguments[4]);
  grpc::ChannelArguments sizes;
  sizes.SetMaxReceiveMessageSize(-1);
  grpc::GenericStub stub(grpc::CreateCustomChannel(arguments[1], grpc::InsecureChannelCredentials(), sizes));

  std::vector<std::unique_ptr<Call>> all;
  for (int number = 0; number < calls; ++number) all.push_back(std::make_unique<Call>(&stub, Kind(number)));
  for (auto& call : all) call->MustSucceed();
  std::cout << "unary 0" << std::endl;

  Stream(&stub, messages);
  std::cout << "stream 0" << std::endl;

  Call late(&stub, "slow", [](grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1000));
  });
  std::cout << "deadline " << late.Wait().error_code() << std::endl;

  Call slow(&stub, "slow");
  Call(&stub, "0").MustSucceed();
  slow.context.TryCancel();
  std::cout << "cancel " << slow.Wait().error_code() << std::endl;

  const grpc::Status unknown = Call(&stub, "unknown").Wait();
  std::cout << "unknown " << unknown.error_code() << " " << unknown.error_message() << std::endl;
  Call(&stub, "large").MustSucceed();
  std::cout << "large 0" << std::endl;
  for (int number = 0; number < kKinds; ++number) {
    Call(&stub, Kind(number), [](grpc::ClientContext* context) {
      context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }).MustSucceed();
  }
  std::cout << "gzip 0" << std::endl;
  Call(&stub, "0", [](grpc::ClientContext* context) {
    std::string every;
    for (int number = 0; number < 256; ++number) every.push_back(static_cast<char>(number));
    context->AddMetadata("x-plain", "plain");
    context->AddMetadata("x-every-byte-bin", every);
  }).MustSucceed();
  std::cout << "metadata 0" << std::endl;
  const grpc::Status refused = Call(&stub, "0", [](grpc::ClientContext*) {}, false).Wait();
  std::cout << "refused " << refused.error_code() << " " << refused.error_message() << std::endl;
}
