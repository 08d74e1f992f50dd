// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Owners of what CUDA hands out, and errors in this library's words.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm::cuda {

/// Throws what `status` says of `doing` (OutOfMemory for too little memory on the device: the engine
/// halves its buffers and tries again); nothing for success.
void check(cudaError_t status, const char* doing);
/// The same for the launch just made.
void check_launch(const char* doing);

/// What the runtime answers when it is asked for devices.
struct DeviceAnswer {
    cudaError_t status = cudaSuccess;
    /// The CUDA that the driver knows, 1000 major + 10 minor; 0: no driver. Asked where status is an error.
    int driver = 0;
    int count = 0;
    int major = 0, minor = 0; ///< compute capability of the device asked for
};
/// What stands against running on `device`, in words; empty: nothing.
std::string obstacle_of(const DeviceAnswer& answer, int device);
/// And what is needed instead.
std::string needed_for(const DeviceAnswer& answer, int device);

/// Memory on the current device; grows, never shrinks, keeps nothing when it grows.
class DeviceBytes {
public:
    DeviceBytes() = default;
    DeviceBytes(const DeviceBytes&) = delete;
    DeviceBytes& operator=(const DeviceBytes&) = delete;
    DeviceBytes(DeviceBytes&& other) noexcept {
        swap(other);
    }
    DeviceBytes& operator=(DeviceBytes&& other) noexcept {
        swap(other);
        return *this;
    }
    ~DeviceBytes() {
        release();
    }
    /// Makes room for so many bytes. Throws OutOfMemory.
    void reserve(size_t bytes);
    void release() noexcept;
    void* data() const {
        return data_;
    }
    size_t size() const {
        return size_;
    }

private:
    void swap(DeviceBytes& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    void* data_ = nullptr;
    size_t size_ = 0;
};

template <class T> class DeviceArray {
public:
    void reserve(size_t count) {
        bytes_.reserve(count * sizeof(T));
    }
    void release() noexcept {
        bytes_.release();
    }
    T* data() const {
        return static_cast<T*>(bytes_.data());
    }
    size_t bytes() const {
        return bytes_.size();
    }

private:
    DeviceBytes bytes_;
};

/// Page-locked host memory.
class PinnedBytes {
public:
    PinnedBytes() = default;
    PinnedBytes(const PinnedBytes&) = delete;
    PinnedBytes& operator=(const PinnedBytes&) = delete;
    ~PinnedBytes();
    void reserve(size_t bytes);
    void* data() const {
        return data_;
    }
    size_t size() const {
        return size_;
    }

private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

class OwnedStream {
public:
    OwnedStream();
    OwnedStream(const OwnedStream&) = delete;
    OwnedStream& operator=(const OwnedStream&) = delete;
    ~OwnedStream();
    cudaStream_t get() const {
        return stream_;
    }
    void synchronize() const;

private:
    cudaStream_t stream_ = nullptr;
};

class Event {
public:
    Event();
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event();
    void record(cudaStream_t stream);
    /// What comes next on `stream` waits for the last record().
    void block(cudaStream_t stream) const;
    void synchronize() const;
    /// Whether the last record() has been reached.
    bool reached() const;

private:
    cudaEvent_t event_ = nullptr;
};

/// Makes a device current while it lives, and the old one again afterwards.
class DeviceGuard {
public:
    explicit DeviceGuard(int device);
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;
    ~DeviceGuard();

private:
    int before_ = 0;
};

} // namespace faiss_gmm::cuda
