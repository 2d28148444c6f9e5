# A process that shuts itself in with Landlock three times, and then tries what it may not do. All
# names are made of odd bytes. Numbers: Linux, x86-64.


my ($create_ruleset, $add_rule, $restrict_self, $prctl, $ptrace) = (444, 445, 446, 157, 101);
my ($by_path, $by_port, $unix, $inet, $stream) = (1, 2, 1, 2, 1);

# All bytes, 15 at a time: as many as the name of a task has.
my @names = ("plain");
for (my $byte = 1; $byte < 256; $byte += 15) {
    push @names, join "", map { chr } grep { $_ < 256 } $byte .. $byte + 14;
}
my $path = sub { my $name = shift; $name =~ tr{/}{s}; "/tmp/d/$name" };
my $abstract = sub { pack("S", $unix) . "\0" . shift };
my $local = sub { pack("S n C4 x8", $inet, shift, 127, 0, 0, 1) };

mkdir "/tmp/d";
my (@outside, @listening);
for (@names) {
    open(my $made, ">", $path->($_));
    mkdir $path->($_) . ".dir";
    socket(my $socket, $unix, $stream, 0);
    bind($socket, $abstract->($_));
    listen($socket, 1);
    push @listening, $socket;
    pipe(my $named, my $tell);
    my $pid = fork;
    if (!$pid) {
        my $name = "$_\0";
        syscall($prctl, 15, $name, 0, 0, 0);
        syswrite($tell, "x");
        sleep 1000;
        exit;
    }
    sysread($named, my $told, 1);
    push @outside, $pid;
}

for my $layer (0 .. 2) {
    my $handled = pack("QQQ", $layer == 1 ? 0x6 : 0x1ffff, 3, 3);
    my $rules = syscall($create_ruleset, $handled, 24, 0);
    for my $folder ("/tmp", map { $path->($_) . ".dir" } @names) {
        open(my $opened, "<", $folder);
        my $rule = pack("Ql", (0x400e, 0x6, 0xe)[$layer], fileno($opened));
        syscall($add_rule, $rules, $by_path, $rule, 0);
    }
    for ([1, 4711], [3, 4712]) {
        my $rule = pack("QQ", @$_);
        syscall($add_rule, $rules, $by_port, $rule, 0);
    }
    syscall($prctl, 38, 1, 0, 0, 0);
    syscall($restrict_self, $rules, 0);
}

for (@names) {
    open(my $read, "<", $path->($_));
    truncate($path->($_), 0);
    unlink $path->($_);
    socket(my $socket, $unix, $stream, 0);
    connect($socket, $abstract->($_));
}
for my $pid (@outside) {
    syscall($ptrace, 16, $pid, 0, 0);
    kill 10, $pid;
}
for my $port (4711 .. 4713) {
    socket(my $bound, $inet, $stream, 0);
    bind($bound, $local->($port));
    socket(my $connected, $inet, $stream, 0);
    connect($connected, $local->($port));
}
