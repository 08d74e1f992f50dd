// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/cuda/detail/device.h"

#include <string>

#include <fmt/format.h>

namespace faiss_gmm::cuda {

namespace {

size_t mib(size_t bytes) {
    return (bytes >> 20) + ((bytes & ((size_t{1} << 20) - 1)) != 0);
}

/// ", 12 of 80,000 MiB free", or nothing where the device does not say.
std::string free_memory() {
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
        cudaGetLastError();
        return {};
    }
    return fmt::format(", {} of {} MiB free", free >> 20, total >> 20);
}

bool is_beyond(const DeviceAnswer& answer, int device) {
    return answer.status == cudaSuccess && (device < 0 || device >= answer.count);
}

} // namespace

void check(cudaError_t status, const char* doing) {
    if (status == cudaSuccess) {
        return;
    }
    cudaGetLastError(); // so that the next call does not report it again
    const std::string given =
            fmt::format("CUDA error {} ({})", cudaGetErrorName(status), cudaGetErrorString(status));
    if (status == cudaErrorMemoryAllocation) {
        throw OutOfMemory(
                {doing,
                 given + free_memory(),
                 "what fits into the device's free memory",
                 "free device memory, give a smaller gpu_memory, or choose engine=cpu"});
    }
    throw Error(
            {doing,
             given,
             "a working device and driver",
             "look at nvidia-smi, or choose engine=cpu"});
}

void check_launch(const char* doing) {
    check(cudaPeekAtLastError(), doing);
}

std::string needed_for(const DeviceAnswer& answer, int device) {
    if (is_beyond(answer, device) && answer.count > 0) {
        return answer.count == 1 ? "device=0" : fmt::format("device=0 to {}", answer.count - 1);
    }
    return fmt::format(
            "a GPU of compute capability 8.0 or later and a driver for CUDA {}.{}",
            CUDART_VERSION / 1000,
            CUDART_VERSION % 1000 / 10);
}

std::string obstacle_of(const DeviceAnswer& answer, int device) {
    if (answer.status != cudaSuccess) {
        const int driver = answer.driver;
        const std::string found =
                driver == 0
                        ? std::string("no NVIDIA driver")
                        : fmt::format("a driver for CUDA {}.{}", driver / 1000, driver % 1000 / 10);
        return fmt::format("{} ({})", found, cudaGetErrorString(answer.status));
    }
    if (is_beyond(answer, device)) {
        return fmt::format(
                "device {} of {} device{}", device, answer.count, answer.count == 1 ? "" : "s");
    }
    if (answer.major < 8) {
        return fmt::format(
                "device {} of compute capability {}.{}", device, answer.major, answer.minor);
    }
    return {};
}

void DeviceBytes::reserve(size_t bytes) {
    if (bytes <= size_) {
        return;
    }
    release();
    const std::string doing = fmt::format("reserving {} MiB of device memory", mib(bytes));
    check(cudaMalloc(&data_, bytes), doing.c_str());
    size_ = bytes;
}

void DeviceBytes::release() noexcept {
    if (data_ != nullptr) {
        cudaFree(data_);
    }
    data_ = nullptr;
    size_ = 0;
}

PinnedBytes::~PinnedBytes() {
    if (data_ != nullptr) {
        cudaFreeHost(data_);
    }
}

void PinnedBytes::reserve(size_t bytes) {
    if (bytes <= size_) {
        return;
    }
    if (data_ != nullptr) {
        cudaFreeHost(data_);
        data_ = nullptr;
        size_ = 0;
    }
    const cudaError_t status = cudaHostAlloc(&data_, bytes, cudaHostAllocDefault);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        throw OutOfMemory(
                {"reserving pinned host memory",
                 fmt::format("{} MiB", mib(bytes)),
                 "what the system lets a process pin of its free memory",
                 "free host memory, raise the limit on locked memory, or choose engine=cpu"});
    }
    check(status, "reserving pinned host memory");
    size_ = bytes;
}

OwnedStream::OwnedStream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a CUDA stream");
}

OwnedStream::~OwnedStream() {
    if (stream_ != nullptr) {
        cudaStreamDestroy(stream_);
    }
}

void OwnedStream::synchronize() const {
    check(cudaStreamSynchronize(stream_), "running the E-step on the device");
}

Event::Event() {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making a CUDA event");
}

Event::~Event() {
    if (event_ != nullptr) {
        cudaEventDestroy(event_);
    }
}

void Event::record(cudaStream_t stream) {
    check(cudaEventRecord(event_, stream), "recording a CUDA event");
}

void Event::block(cudaStream_t stream) const {
    check(cudaStreamWaitEvent(stream, event_, 0), "waiting for a CUDA event");
}

void Event::synchronize() const {
    check(cudaEventSynchronize(event_), "running the E-step on the device");
}

bool Event::reached() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
        return false;
    }
    check(status, "running the E-step on the device");
    return true;
}

DeviceGuard::DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    if (device != before_) {
        check(cudaSetDevice(device), "choosing the device");
    }
}

DeviceGuard::~DeviceGuard() {
    cudaSetDevice(before_);
}

} // namespace faiss_gmm::cuda
