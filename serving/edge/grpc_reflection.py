"""`grpc.reflection`: which services there are and what their messages look like, for tools such as grpcurl.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from serving.protocol.call import Call
from serving.protocol.codes import Code

# Two names of one protocol: the messages are alike, byte for byte.
SERVICES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


class Reflection:
    """Tells of these services."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()

    def ask(self, payload: bytes, call: Call) -> None:
        """Answers one message of ServerReflectionInfo."""
        try:
            request = pb.ServerReflectionRequest.FromString(payload)
        except DecodeError as error:
            call.fail(Code.INVALID_ARGUMENT, f"the request is not a ServerReflectionRequest: {error}")
            return
        answer = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._answer(request, answer)
        except KeyError as error:
            answer.error_response.error_code = Code.NOT_FOUND.value
            answer.error_response.error_message = str(error.args[0])
        call.reply(answer.SerializeToString())

    def _answer(self, request: pb.ServerReflectionRequest, answer: pb.ServerReflectionResponse) -> None:
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif asked == "file_by_filename":
            self._describe(self._pool.FindFileByName(request.file_by_filename), answer)
        elif asked == "file_containing_symbol":
            self._describe(self._file_of(request.file_containing_symbol), answer)
        elif asked == "file_containing_extension":
            message = self._pool.FindMessageTypeByName(request.file_containing_extension.containing_type)
            number = request.file_containing_extension.extension_number
            self._describe(self._pool.FindExtensionByNumber(message, number).file, answer)  # type: ignore[attr-defined]
        elif asked == "all_extension_numbers_of_type":
            message = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            told = answer.all_extension_numbers_response
            told.base_type_name = message.full_name
            told.extension_number.extend(sorted(one.number for one in self._pool.FindAllExtensions(message)))
        else:
            raise KeyError("the request asks for nothing that reflection knows")

    def _file_of(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:  # it knows services and not their methods
            return self._pool.FindMethodByName(symbol).containing_service.file

    def _describe(self, file: FileDescriptor, answer: pb.ServerReflectionResponse) -> None:
        """The file and all that it needs, itself first."""
        seen: dict[str, FileDescriptor] = {}
        left = [file]
        while left:
            one = left.pop(0)
            if one.name not in seen:
                seen[one.name] = one
                left.extend(one.dependencies)
        for one in seen.values():
            described = descriptor_pb2.FileDescriptorProto()
            one.CopyToProto(described)
            answer.file_descriptor_response.file_descriptor_proto.append(described.SerializeToString())
