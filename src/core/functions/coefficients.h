#pragma once
// The numbers of core/functions, the lowest power first. Written by scripts/fit_functions; docs/functions.md says
// where each of them stands.

#include <array>
#include <bit>
#include <cstdint>

namespace tessera::functions {

constexpr float kInfinityF32 = std::bit_cast<float>(0x7f800000u), kNanF32 = std::bit_cast<float>(0x7fc00000u);
constexpr double kInfinityF64 = std::bit_cast<double>(0x7ff0000000000000u),
                 kNanF64 = std::bit_cast<double>(0x7ff8000000000000u);

/// (e^r - 1 - r) / r^2, |r| <= ln 2 / 2; relative error of the result 2^-28.3.
constexpr std::array<float, 5> kExpF32 = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558acp-5f, 0x1.123974p-7f,
                                          0x1.6a504ap-10f};

/// (log(1 + f) - f + f^2 / 2) / f^3, sqrt 1/2 <= 1 + f <= sqrt 2; relative error of the result 2^-30.3.
constexpr std::array<float, 9> kLogF32 = {0x1.555548p-2f,  -0x1.000006p-2f, 0x1.99a476p-3f,
                                          -0x1.555c44p-3f, 0x1.233ba2p-3f,  -0x1.fc28cap-4f,
                                          0x1.e6c006p-4f,  -0x1.de01cap-4f, 0x1.14732ap-4f};

/// (tanh x - x) / x^3 in z = x^2 <= 0.3125; relative error of the result 2^-33.0.
constexpr std::array<float, 6> kTanhF32 = {-0x1.555554p-2f, 0x1.111084p-3f,  -0x1.b9f496p-5f,
                                           0x1.63cd7ep-6f,  -0x1.0d34d2p-7f, 0x1.1d3634p-9f};

/// (e^r - 1 - r) / r^2, |r| <= ln 2 / 2; relative error of the result 2^-63.8.
constexpr std::array<double, 11> kExpF64 = {0x1p-1,
                                            0x1.555555555555ap-3,
                                            0x1.5555555555531p-5,
                                            0x1.111111110f167p-7,
                                            0x1.6c16c16c26f9ep-10,
                                            0x1.a01a01b1e431cp-13,
                                            0x1.a01a0151e3f64p-16,
                                            0x1.71ddf388fe438p-19,
                                            0x1.27e58f394f17dp-22,
                                            0x1.af66b8cdbaaeap-26,
                                            0x1.1e627b8122bc6p-29};

/// (atanh s - s - s^3 / 3 - s^5 / 5) / s^7 in z = s^2, |s| <= (sqrt 2 - 1)^2; relative error of the result 2^-80.1.
constexpr std::array<double, 8> kLogF64 = {0x1.2492492492489p-3, 0x1.c71c71c71f245p-4, 0x1.745d174349144p-4,
                                           0x1.3b13b28124451p-4, 0x1.1110b0003b63dp-4, 0x1.e2052a09b4943p-5,
                                           0x1.ab520a8e321c2p-5, 0x1.c0631225005f4p-5};

/// (sin r - r) / r^3 in z = r^2, |r| <= pi / 4; relative error of the result 2^-57.9.
constexpr std::array<double, 6> kSinF64 = {-0x1.5555555555548p-3, 0x1.111111110f73p-7,    -0x1.a01a019be9217p-13,
                                           0x1.71de35552b747p-19, -0x1.ae5e4b8437fb7p-26, 0x1.5d8b55c3085aap-33};

/// (cos r - 1 + r^2 / 2) / r^4 in z = r^2, |r| <= pi / 4; relative error of the result 2^-63.9.
constexpr std::array<double, 6> kCosF64 = {0x1.555555555554bp-5,   -0x1.6c16c16c15011p-10, 0x1.a01a019c8e7c2p-16,
                                           -0x1.27e4f7f0f203ap-22, 0x1.1ee9db4eeb4aep-29,  -0x1.8fa639ccaeb31p-37};

/// Where e^x is a normal number of f32: from 2^-126 on, below what rounds to 2^128.
constexpr std::array<float, 2> kExpF32Range = {-0x1.5d589ep+6f, 0x1.62e42ep+6f};

/// ln 2 in two parts; the first times an integer below 2^8 is exact.
constexpr std::array<float, 2> kLn2F32 = {0x1.62e4p-1f, 0x1.7f7d1cp-20f};

/// ln 2 in three parts; the first two times an integer below 2^11 are exact.
constexpr std::array<double, 3> kLn2F64 = {0x1.62e42fefa38p-1, 0x1.ef35793c768p-45, -0x1.9ff0342542fc3p-90};

/// pi / 2 in three parts.
constexpr std::array<double, 3> kHalfPiF64 = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};

/// 1 / ln 2.
constexpr std::array<float, 1> kInverseLn2F32 = {0x1.715476p+0f};

/// 1 / ln 2 in two parts.
constexpr std::array<double, 2> kInverseLn2F64 = {0x1.71547652b82fep+0, 0x1.777d0ffda0d24p-56};

/// 2 / pi.
constexpr std::array<double, 1> kInverseHalfPiF64 = {0x1.45f306dc9c883p-1};

/// 1 / 3 in two parts.
constexpr std::array<double, 2> kThirdF64 = {0x1.5555555555555p-2, 0x1.5555555555555p-56};

/// 1 / 5 in two parts.
constexpr std::array<double, 2> kFifthF64 = {0x1.999999999999ap-3, -0x1.999999999999ap-57};

}  // namespace tessera::functions
